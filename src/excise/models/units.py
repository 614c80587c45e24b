"""Units: the parts of a model that are scored and ablated, all as blocks of input channels of output projections.

Whatever a layer adds to the residual stream leaves through two linear maps, the output projections of attention and
MLP. A unit is a block of their input channels:

=============  ===================  =============================================
unit           per layer            channels
=============  ===================  =============================================
``neuron``     MLP width            one, of the MLP's output projection
``head``       query heads          ``head_dim``, of the attention's
``mlp``        1                    all of the MLP's
``attention``  1                    all of the attention's
``layer``      1                    all of both, attention first
=============  ===================  =============================================

So a score that adds up over channels is defined for every unit, and the scores of all neurons of an MLP add up to that
of the MLP.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from excise.errors import unknown
from excise.models.families import architecture, head_shape, neuron_shape

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import nn

    Values = TypeVar("Values", "torch.Tensor", "np.ndarray[Any, Any]")

UNITS = ("neuron", "head", "mlp", "attention", "layer")

NUMBERED = ("neuron", "head")
"""Units of which a layer has several."""


@dataclass(frozen=True)
class Axis:
    """The units of one kind in one model.

    Attributes:
        unit: one of ``UNITS``.
        layers: number of layers.
        size: units per layer.
        sites: for the output projections that the unit writes through: path inside a layer, and number of input
            channels. The channels of several sites are joined in this order.
    """

    unit: str
    layers: int
    size: int
    sites: tuple[tuple[str, int], ...]

    @property
    def shape(self) -> tuple[int, int]:
        """Of the scores of all units."""
        return self.layers, self.size

    @property
    def width(self) -> int:
        """Channels per unit."""
        return sum(channels for _, channels in self.sites) // self.size

    def fold(self, values: "Values") -> "Values":
        """Sum over the channels of each unit.

        Args:
            values: ``[..., channels]``, the channels of all sites joined.

        Returns:
            ``[..., units]``; for neurons the values themselves.
        """
        if self.width == 1:
            return values
        folded: Values = values.reshape(*values.shape[:-1], self.size, self.width).sum(-1)
        return folded


def axis(config: Any, unit: str) -> Axis:
    """The units of one kind, from a model's configuration alone.

    Raises:
        ExciseError: there is no such unit, or the family is not supported.
    """
    if unit not in UNITS:
        raise unknown("unit", unit, UNITS)
    family = architecture(config)
    layers, neurons = neuron_shape(config)
    _, heads, _, head_dim = head_shape(config)
    attention, mlp = (family.attention.output, heads * head_dim), (family.output, neurons)
    sites = {"neuron": (mlp,), "mlp": (mlp,), "head": (attention,), "attention": (attention,)}
    return Axis(unit, layers, {"neuron": neurons, "head": heads}.get(unit, 1), sites.get(unit, (attention, mlp)))


def sites(model: "nn.Module", unit: str) -> list[tuple["nn.Module", ...]]:
    """For each layer the output projections that its units of one kind write through, in the order of the axis."""
    from excise.models.parts import decoder_layers

    paths = [path for path, _ in axis(model.config, unit).sites]
    return [tuple(layer.get_submodule(path) for path in paths) for layer in decoder_layers(model)]
