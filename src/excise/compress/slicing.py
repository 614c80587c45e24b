"""Cut whole neurons out of every MLP: a smaller model of the same architecture, faster everywhere.

Every layer keeps the same number of neurons, so that config.json has a place for it. The output projection takes over
what the cut neurons did as far as the others can say it: least squares on the calibration tokens.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from excise.artefacts import Json
from excise.compress.change import Dense, Place, neurons_at, turned
from excise.compress.edit import gram_of
from excise.compress.inputs import Inputs, damped
from excise.errors import ExciseError, unknown
from excise.models.families import architecture, neuron_shape
from excise.models.parts import linear_maps

REPAIRS = ("none", "least-squares")
DAMPING = 0.01
"""Share of the mean diagonal of the Gram matrix."""


def importance(down: Tensor, norms: Tensor) -> Tensor:
    """Norm of each neuron's activations times the norm of its column, ``[neurons]``: the size of what it adds.

    Args:
        down: ``[hidden, neurons]``, the output projection.
        norms: ``[neurons]``, over the calibration tokens.
    """
    return norms * down.square().sum(0).sqrt()


def kept(scores: Tensor, width: int) -> Tensor:
    """Numbers of the ``width`` neurons with the highest scores, in order; of equal ones the lower goes first."""
    return scores.argsort(stable=True)[len(scores) - width :].sort().values


def repaired(down: Tensor, gram: Tensor, keep: Tensor) -> Tensor:
    """The output projection of the kept neurons that changes the MLP's outputs least, ``[hidden, kept]``.

    ``W G_:S (G_SS + damping)^-1``: the ridge pulls towards the old columns.

    Args:
        down: ``[hidden, neurons]``.
        gram: ``[neurons, neurons]`` of the activations, float64.
        keep: numbers of the kept neurons.

    Raises:
        ExciseError: the Gram matrix is not positive definite.
    """
    full = damped(gram, DAMPING)
    lower, failed = torch.linalg.cholesky_ex(full[keep][:, keep])
    if failed:
        raise ExciseError("the Gram matrix of the neurons is not positive definite: calibrate with more tokens")
    found: Tensor = torch.cholesky_solve(full[keep] @ down.double().T, lower)
    return found.T.to(down.dtype)


@dataclass(frozen=True)
class Slice:
    """Keep ``width`` neurons of every layer.

    Attributes:
        width: neurons that each layer keeps.
        repair: one of ``REPAIRS``.
    """

    width: int
    repair: str = "least-squares"

    def __post_init__(self) -> None:
        """Refuse an unknown repair.

        Raises:
            ExciseError: it is unknown.
        """
        if self.repair not in REPAIRS:
            raise unknown("repair", self.repair, REPAIRS, where="--repair")

    @property
    def needs(self) -> str:
        """What is measured of the neurons' activations."""
        return "norms" if self.repair == "none" else "gram"

    def maps(self, model: Any, layer: int) -> dict[str, nn.Module]:
        """The output projection, whose inputs are the neurons."""
        path = architecture(model.config).output
        return {path: linear_maps(model, layer)[path]}

    def check(self, model: Any) -> None:
        """Refuse a width that is not smaller.

        Raises:
            ExciseError: it is not.
        """
        width = neuron_shape(model.config)[1]
        if not 0 < self.width < width:
            raise ExciseError(f"{self.width} neurons per layer: must be at least 1 and fewer than the model's {width}")

    def prepared(self, model: Any, dense: Dense, place: Place) -> "Slice":  # noqa: ARG002 (each layer by itself)
        """Itself."""
        return self

    def entries(self, config: Any) -> Json:
        """The new width."""
        return {architecture(config).width: self.width}

    def apply(
        self, model: Any, tensors: dict[str, Tensor], inputs: dict[str, Inputs], layer: int, place: Place
    ) -> tuple[dict[str, Tensor], list[Json]]:
        """Cut rows (and biases) of the input projections and columns of the output projection.

        Raises:
            ExciseError: a number is not finite, or the Gram matrix cannot be inverted.
        """
        family = architecture(model.config)
        maps = linear_maps(model, layer)
        down = place.exact(turned(maps[family.output], tensors[f"{family.output}.weight"]))
        measured = inputs[family.output]
        scores = importance(down, measured.norms.to(down.dtype))
        if not scores.isfinite().all():
            raise ExciseError(f"layer {layer}, {family.output}: a weight or an activation is not finite")
        keep = kept(scores, self.width)
        columns = down[:, keep] if self.repair == "none" else repaired(down, gram_of(measured), keep)
        dtype = tensors[f"{family.output}.weight"].dtype
        new = {f"{family.output}.weight": turned(maps[family.output], columns.to("cpu", dtype)).contiguous()}
        new |= neurons_at(family, maps, tensors, keep, down.shape[1])
        return new, [{"layer": layer, "neurons": down.shape[1], "kept": keep.tolist()}]

    def total(self, rows: list[Json]) -> Json:
        """How many neurons there were, and how many are kept."""
        return {"neurons": sum(row["neurons"] for row in rows), "kept": sum(len(row["kept"]) for row in rows)}
