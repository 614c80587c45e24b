"""The model that is measured: how it is opened, what it was made with, and that nothing else was done to it.

A variant is a model folder, or a model folder and a unit list that is applied in memory. Every measuring stage opens it
here and nowhere else.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from excise.artefacts import Json, sha256_file


@dataclass(frozen=True)
class Variant:
    """An open variant.

    Attributes:
        model: a causal language model in eval mode.
        made_with: blocks of provenance: ``model``, the identity of its folder; ``selection``, what is said of its unit
            list, None where there is none.
    """

    model: Any
    made_with: Json


def load_variant(folder: Path, units: Path | None = None, *, dtype: str, device: str) -> Variant:
    """Open a variant.

    Args:
        folder: the model folder.
        units: a unit list to apply in memory; None: the folder as it is.
        dtype: float32, bfloat16 or float64.
        device: as for ``models.loading.load_model``.

    Raises:
        ExciseError: the unit list was made for another model, or the folder cannot be loaded.
    """
    from excise.edits.ablation import prune
    from excise.edits.unit_list import check_fits, read_units
    from excise.models.loading import identity, load_model

    made_from = identity(folder, dtype)
    listed = None
    if units is not None:
        listed = read_units(units)
        check_fits(listed, made_from["fingerprint"], where=str(units))
    model = load_model(folder, dtype=dtype, device=device)
    if listed is not None:
        prune(model, listed)
    return Variant(model, {"model": made_from, "selection": units_info(listed, units)})


def units_info(units: Json | None, path: Path | None) -> Json | None:
    """What an artefact says of a unit list: name, size, ablation and digest; None for the unpruned model."""
    if units is None or path is None:
        return None
    return {
        "name": units["name"],
        "unit": units["unit"],
        "count": len(units["rows"]),
        "ablation": units["ablation"],
        "scale": units["scale"],
        "sha256": sha256_file(path),
    }
