"""Where a model family keeps its layers, its MLP neurons and its attention: one table, one row a family.

A *neuron* is one intermediate channel of an MLP: row ``i`` of every input projection (up, and gate where there
is one), and column ``i`` of the output projection. Its activation is input ``i`` of the output projection.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from excise.errors import unknown

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Architecture:
    """One model family.

    Attributes:
        layers: path of the list of decoder layers inside the causal language model.
        inputs: paths, inside a layer, of the projections whose output rows are the neurons.
        output: path, inside a layer, of the projection whose input columns are the neurons.
        fused: how many blocks of neurons each input projection stacks along its rows (2 for gate_up_proj).
        transposed: the projections are ``Conv1D``: their weight is stored input x output.
        width: names of the configuration entry that holds the number of neurons of a layer.
    """

    layers: str
    inputs: tuple[str, ...]
    output: str
    fused: int = 1
    transposed: bool = False
    width: str = "intermediate_size"


_GATED = Architecture("model.layers", ("mlp.gate_proj", "mlp.up_proj"), "mlp.down_proj")

ARCHITECTURES: dict[str, Architecture] = {
    "llama": _GATED,
    "mistral": _GATED,
    "qwen2": _GATED,
    "qwen3": _GATED,
    "gemma": _GATED,
    "gemma2": _GATED,
    "gemma3_text": _GATED,
    "olmo2": _GATED,
    "phi3": Architecture("model.layers", ("mlp.gate_up_proj",), "mlp.down_proj", fused=2),
    "opt": Architecture("model.decoder.layers", ("fc1",), "fc2", width="ffn_dim"),
    "gpt2": Architecture("transformer.h", ("mlp.c_fc",), "mlp.c_proj", transposed=True, width="n_inner"),
    "gpt_neox": Architecture("gpt_neox.layers", ("mlp.dense_h_to_4h",), "mlp.dense_4h_to_h"),
}
"""Keyed by the configuration's ``model_type``."""


def architecture(config: Any) -> Architecture:  # noqa: ANN401 (any PretrainedConfig)
    """The row of a model's family.

    Args:
        config: a ``PretrainedConfig`` or anything with ``model_type``.

    Raises:
        ExciseError: the family is not in the table.
    """
    if config.model_type not in ARCHITECTURES:
        raise unknown("model type", config.model_type, ARCHITECTURES, where="model")
    return ARCHITECTURES[config.model_type]


def neuron_shape(config: Any) -> tuple[int, int]:  # noqa: ANN401
    """(layers, neurons per layer), from the configuration alone."""
    width = getattr(config, architecture(config).width)
    return config.num_hidden_layers, width if width is not None else 4 * config.hidden_size


def decoder_layers(model: "nn.Module") -> list["nn.Module"]:
    """The decoder layers, first to last."""
    return list(model.get_submodule(architecture(model.config).layers).children())


def output_projections(model: "nn.Module") -> list["nn.Module"]:
    """For each layer the projection whose input is the neuron activations, ``[..., neurons]``."""
    path = architecture(model.config).output
    return [layer.get_submodule(path) for layer in decoder_layers(model)]


def input_projections(model: "nn.Module") -> list[tuple["nn.Module", ...]]:
    """For each layer the projections whose output rows are the neurons."""
    paths = architecture(model.config).inputs
    return [tuple(layer.get_submodule(path) for path in paths) for layer in decoder_layers(model)]
