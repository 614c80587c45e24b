"""What the driver asks of a change: pruned weights, or neurons cut out, of one layer at a time."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from excise.artefacts import Json
from excise.compress.inputs import Inputs
from excise.models.families import Architecture, architecture
from excise.models.parts import linear_maps


@dataclass(frozen=True)
class Place:
    """Where numbers are computed.

    Attributes:
        dtype: what layers run in; weights are scored and solved in float32, or in float64 where this is.
        device: of both.
    """

    dtype: torch.dtype = torch.float32
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def exact(self, tensor: Tensor) -> Tensor:
        """A stored tensor, ready to be computed with."""
        return tensor.to(self.device, torch.float64 if self.dtype == torch.float64 else torch.float32)


Dense = Callable[[], Iterator[tuple[dict[str, Tensor], dict[str, Inputs]]]]
"""A pass through the dense model: of each layer the tensors as stored, and the norms of the inputs of its maps."""


class Change(Protocol):
    """A change of every layer of a model."""

    @property
    def needs(self) -> str:
        """``norms`` or ``gram`` of the inputs of the maps; anything else needs no calibration."""
        ...

    def maps(self, model: Any, layer: int) -> dict[str, nn.Module]:
        """The linear maps of a layer whose inputs are measured, by path."""
        ...

    def check(self, model: Any) -> None:
        """Refuse a model that the change does not fit, before anything is run."""
        ...

    def prepared(self, model: Any, dense: Dense, place: Place) -> "Change":
        """The change itself, or one that knows of all layers what it must know before the first is changed."""
        ...

    def entries(self, config: Any) -> Json:
        """Entries of config.json that change."""
        ...

    def apply(
        self, model: Any, tensors: dict[str, Tensor], inputs: dict[str, Inputs], layer: int, place: Place
    ) -> tuple[dict[str, Tensor], list[Json]]:
        """The layer's tensors that change, by their names inside the layer, and rows for the manifest."""
        ...

    def total(self, rows: list[Json]) -> Json:
        """The manifest's sums."""
        ...


def maps_in(scope: str, model: Any, layer: int) -> dict[str, nn.Module]:
    """The linear maps of a layer, by path: ``all``, those of the ``attention``, or those of the ``mlp``."""
    family = architecture(model.config)
    mlp = {*family.inputs, family.output}
    return {
        path: part
        for path, part in linear_maps(model, layer).items()
        if scope in ("all", "mlp" if path in mlp else "attention")
    }


def turned(module: nn.Module, weight: Tensor) -> Tensor:
    """A map's weight as ``[outputs, inputs]``, or back to how it is stored: ``Conv1D`` keeps inputs x outputs."""
    return weight.T.contiguous() if isinstance(module, Conv1D) else weight


def neurons_at(
    family: Architecture, maps: dict[str, nn.Module], tensors: dict[str, Tensor], places: Tensor, width: int
) -> dict[str, Tensor]:
    """The MLP's input projections with only these neurons, in this order: rows and biases, by their names.

    Args:
        family: the model's row in the table.
        maps: the layer's linear maps.
        tensors: the layer's tensors as stored.
        places: numbers of the neurons.
        width: how many neurons there are; a fused projection stacks as many rows per block.
    """
    rows = torch.cat([places.cpu() + block * width for block in range(family.fused)])
    new = {}
    for path in family.inputs:
        new[f"{path}.weight"] = turned(maps[path], turned(maps[path], tensors[f"{path}.weight"])[rows]).contiguous()
        if f"{path}.bias" in tensors:
            new[f"{path}.bias"] = tensors[f"{path}.bias"][rows]
    return new
