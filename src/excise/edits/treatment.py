"""What is to become of selected units: the part of a unit list that does not depend on how they were selected."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from excise.artefacts import Array, Json, read_arrays, sha256_file
from excise.edits.unit_list import ABLATIONS, check_fits, named
from excise.errors import ExciseError, unknown


@dataclass(frozen=True)
class Treatment:
    """What the units are scaled by, and about.

    Attributes:
        ablation: one of ``ABLATIONS``.
        scale: of all units; None where each row has its own.
        means: mean activation of every channel, ``[layers, units, channels per unit]``; None for zero.
        origin: where the means come from; enters the provenance.
    """

    ablation: str
    scale: float | None
    means: "Array | None" = None
    origin: Json | None = None

    def rows(
        self, unit: str, places: Sequence[tuple[int, int]], columns: Mapping[str, Sequence[object]]
    ) -> list[dict[str, Any]]:
        """The rows of a unit list: places, ranks from 1, the given columns, and the means."""
        made = []
        for rank, (layer, index) in enumerate(places, 1):
            row = {**named(layer, index, unit), "rank": rank}
            row |= {name: column[rank - 1] for name, column in columns.items()}
            if self.means is not None:
                mean: list[float] = self.means[layer, index].tolist()
                row["mean"] = mean[0] if unit == "neuron" else mean
            made.append(row)
        return made


def treatment(
    *, ablation: str | None, scale: float | None, mean: Path | None, unit: str, shape: tuple[int, int], model: Json
) -> Treatment:
    """Check the options that say what becomes of units.

    Args:
        ablation: one of ``ABLATIONS``; None: ``mean`` where means are given, or ``zero``.
        scale: of all units; None where each row has its own.
        mean: scores of method mean-activation.
        unit: what is ablated.
        shape: (layers, units per layer).
        model: identity of the model that the units belong to.

    Raises:
        ExciseError: unknown ablation, no means, or means of another model or unit.
    """
    ablation = ablation or ("mean" if mean else "zero")
    if ablation not in ABLATIONS:
        raise unknown("ablation", ablation, ABLATIONS, where="--ablation")
    if ablation == "zero":
        return Treatment(ablation, scale)
    if mean is None:
        raise ExciseError("--mean is missing: the mean activations that the units are scaled about")
    meta, arrays = read_arrays(mean)
    if (meta.get("stage"), meta.get("method")) != ("average", "mean-activation"):
        raise ExciseError(f"{mean}: not scores (excise average) of method mean-activation")
    check_fits({"meta": meta}, model["fingerprint"], where=str(mean))
    if (measured := meta["settings"]["unit"]) != unit:
        raise ExciseError(f"{mean}: means of unit {measured}; measure them with --unit {unit}")
    origin = {**meta["corpus"], **meta["counts"], "sha256": sha256_file(mean)}
    means = arrays["score"].reshape(*shape, -1)
    return Treatment(ablation, scale, means, origin)
