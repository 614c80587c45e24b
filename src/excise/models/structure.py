"""What is left of an encoder whose neurons, heads or layers were removed: smaller matrices, not zeros.

A configuration has one width for all layers and no number of heads apart from their size, so what is left is written
down beside the weights, in ``structure.json``.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from excise.artefacts import Json
from excise.errors import ExciseError
from excise.models.families import architecture, head_shape, refuse_other_order
from excise.models.parts import decoder_layers

if TYPE_CHECKING:
    from torch import nn

STRUCTURE_FILE = "structure.json"


@dataclass(frozen=True)
class Layer:
    """What is left of one layer of the dense model.

    Attributes:
        layer: its number there.
        heads: the heads that stay, ascending.
        neurons: the neurons that stay, ascending.
    """

    layer: int
    heads: tuple[int, ...]
    neurons: tuple[int, ...]


@dataclass(frozen=True)
class Structure:
    """What is left of a model.

    Attributes:
        layers: the layers that stay, in order.
        heads: heads per layer of the dense model.
        neurons: neurons per layer of the dense model.
    """

    layers: tuple[Layer, ...]
    heads: int
    neurons: int

    def as_json(self) -> Json:
        """What ``structure.json`` holds."""
        rows = [{"layer": row.layer, "heads": [*row.heads], "neurons": [*row.neurons]} for row in self.layers]
        return {"heads_per_layer": self.heads, "neurons_per_layer": self.neurons, "layers": rows}


def from_json(body: Json, where: object) -> Structure:
    """Read what ``as_json`` wrote.

    Raises:
        ExciseError: it is not a structure, or a layer has lost all heads or all neurons.
    """
    try:
        layers = tuple(Layer(row["layer"], tuple(row["heads"]), tuple(row["neurons"])) for row in body["layers"])
        structure = Structure(layers, body["heads_per_layer"], body["neurons_per_layer"])
    except (KeyError, TypeError) as error:
        raise ExciseError(f"{where}: not a structure ({type(error).__name__}: {error})") from error
    check(structure, where)
    return structure


def check(structure: Structure, where: object) -> None:
    """Refuse what cannot be built.

    Raises:
        ExciseError: no layer is left, one has no head or no neuron, or numbers are out of range or order.
    """
    if not structure.layers:
        raise ExciseError(f"{where}: no layer is left")
    for row in structure.layers:
        for what, units, limit in (("head", row.heads, structure.heads), ("neuron", row.neurons, structure.neurons)):
            if not units:
                raise ExciseError(f"{where}: layer {row.layer} would lose every {what}: one {what} must stay")
            if list(units) != sorted(set(units)) or not 0 <= units[0] <= units[-1] < limit:
                raise ExciseError(f"{where}: layer {row.layer}: {what}s must ascend from 0 to {limit - 1}, each once")
    numbers = [row.layer for row in structure.layers]
    if numbers != sorted(set(numbers)):
        raise ExciseError(f"{where}: layers must ascend, each once")


def whole(config: Any) -> Structure:
    """The structure of a dense model."""
    layers, heads, _, _ = head_shape(config)
    neurons = getattr(config, architecture(config).width)
    rows = tuple(Layer(n, tuple(range(heads)), tuple(range(neurons))) for n in range(layers))
    return Structure(rows, heads, neurons)


def channels(units: Sequence[int], size: int) -> list[int]:
    """Input channels of the output projection that belong to units of ``size`` channels each."""
    return [unit * size + offset for unit in units for offset in range(size)]


def cut(model: "nn.Module", structure: Structure) -> None:
    """Remove what a structure leaves out of a dense encoder, in place.

    ``query``, ``key``, ``value`` lose the rows of the other heads, the attention's output projection their columns; the
    MLP's input projection loses the rows of the other neurons, its output projection their columns.

    Raises:
        ExciseError: the structure is of another shape, or cannot be built.
    """
    config: Any = model.config
    family = architecture(config)
    refuse_other_order(config, causal=False, where="removal")
    check(structure, "removal")
    _, heads, _, size = head_shape(config)
    layers = decoder_layers(model)
    if (structure.heads, structure.neurons) != (heads, getattr(config, family.width)):
        raise ExciseError(
            f"the structure is of {structure.heads} heads and {structure.neurons} neurons per layer, the model has "
            f"{heads} and {getattr(config, family.width)}"
        )
    if structure.layers[-1].layer >= len(layers):
        raise ExciseError(f"the structure keeps layer {structure.layers[-1].layer} of a model of {len(layers)} layers")
    holder = model.get_submodule(family.layers)
    for name in list(holder._modules):
        if int(name) not in {row.layer for row in structure.layers}:
            del holder._modules[name]
    for place, row in enumerate(structure.layers):
        module = holder._modules.pop(str(row.layer))
        _cut_layer(module, family, channels(row.heads, size), list(row.neurons))
        holder._modules[str(place)] = module
    config.num_hidden_layers = len(structure.layers)


def _cut_layer(module: Any, family: Any, head_channels: list[int], neurons: list[int]) -> None:
    attention = family.attention
    for path in (attention.query, attention.key, attention.value):
        _narrow(module.get_submodule(path), rows=head_channels)
    _narrow(module.get_submodule(attention.output), columns=head_channels)
    for path in family.inputs:
        _narrow(module.get_submodule(path), rows=neurons)
    _narrow(module.get_submodule(family.output), columns=neurons)


def _narrow(linear: "nn.Module", *, rows: list[int] | None = None, columns: list[int] | None = None) -> None:
    """Keep some rows or columns of a linear map, in place."""
    from torch import nn

    weight, bias = linear.get_parameter("weight"), linear.get_parameter("bias")
    kept = weight.detach()
    if rows is not None:
        kept = kept[rows]
        linear.bias = nn.Parameter(bias.detach()[rows].clone(), requires_grad=bias.requires_grad)
    if columns is not None:
        kept = kept[:, columns]
    linear.weight = nn.Parameter(kept.clone(), requires_grad=weight.requires_grad)
    linear.out_features, linear.in_features = kept.shape  # type: ignore[assignment]


def encoder_parameters(model: "nn.Module") -> int:
    """Parameters of the layers alone, without embeddings."""
    return sum(parameter.numel() for layer in decoder_layers(model) for parameter in layer.parameters())
