"""Where a model family keeps its layers, its MLP neurons and its attention: one table, one row a family.

A *neuron* is one intermediate channel of an MLP: row ``i`` of every input projection (up, and gate where there
is one), and column ``i`` of the output projection. Its activation is input ``i`` of the output projection.
"""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from excise.errors import ExciseError, unknown

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Architecture:
    """One model family.

    Attributes:
        layers: path of the list of decoder layers inside the causal language model.
        inputs: paths, inside a layer, of the projections whose output rows are the neurons.
        output: path, inside a layer, of the projection whose input columns are the neurons.
        activation: path, inside a layer, of the MLP's element-wise activation function.
        attention: path, inside a layer, of the attention module.
        norm: class of the normalisation modules.
        parts: classes of the other modules with a computation of their own, as the rules of LRP know it:
            a model with a class that is neither here nor a plain linear map is refused.
        gated: the activation is multiplied by the output of an up projection.
        fused: how many blocks of neurons each input projection stacks along its rows (2 for gate_up_proj).
        transposed: the projections are ``Conv1D``: their weight is stored input x output.
        bias: whether the projections have biases: always, never, or as the named configuration entry says.
        width: names of the configuration entry that holds the number of neurons of a layer.
    """

    layers: str
    inputs: tuple[str, ...]
    output: str
    activation: str
    attention: str
    norm: str
    parts: tuple[str, ...]
    gated: bool = True
    fused: int = 1
    transposed: bool = False
    bias: bool | str = False
    width: str = "intermediate_size"


def _gated(prefix: str, *more: str) -> Architecture:
    """A family in the image of Llama, whose classes start with ``prefix``."""
    names = ("ForCausalLM", "Model", "DecoderLayer", "Attention", "MLP", "RotaryEmbedding")
    return Architecture(
        layers="model.layers",
        inputs=("mlp.gate_proj", "mlp.up_proj"),
        output="mlp.down_proj",
        activation="mlp.act_fn",
        attention="self_attn",
        norm=f"{prefix}RMSNorm",
        parts=(*(prefix + name for name in names), *more),
    )


ARCHITECTURES: dict[str, Architecture] = {
    "llama": replace(_gated("Llama"), bias="mlp_bias"),
    "mistral": _gated("Mistral"),
    "qwen2": _gated("Qwen2"),
    "qwen3": _gated("Qwen3"),
    "gemma": _gated("Gemma", "GemmaTextScaledWordEmbedding"),
    "gemma2": _gated("Gemma2", "Gemma2TextScaledWordEmbedding"),
    "gemma3_text": _gated("Gemma3", "Gemma3TextModel", "Gemma3TextScaledWordEmbedding"),
    "olmo2": _gated("Olmo2"),
    "phi3": replace(_gated("Phi3"), inputs=("mlp.gate_up_proj",), activation="mlp.activation_fn", fused=2),
    "opt": Architecture(
        layers="model.decoder.layers",
        inputs=("fc1",),
        output="fc2",
        activation="activation_fn",
        attention="self_attn",
        norm="LayerNorm",
        parts=(
            *("OPTForCausalLM", "OPTModel", "OPTDecoder", "OPTDecoderLayer"),
            *("OPTAttention", "OPTLearnedPositionalEmbedding"),
        ),
        gated=False,
        bias=True,
        width="ffn_dim",
    ),
    "gpt2": Architecture(
        layers="transformer.h",
        inputs=("mlp.c_fc",),
        output="mlp.c_proj",
        activation="mlp.act",
        attention="attn",
        norm="LayerNorm",
        parts=("GPT2LMHeadModel", "GPT2Model", "GPT2Block", "GPT2Attention", "GPT2MLP"),
        gated=False,
        transposed=True,
        bias=True,
        width="n_inner",
    ),
    "gpt_neox": Architecture(
        layers="gpt_neox.layers",
        inputs=("mlp.dense_h_to_4h",),
        output="mlp.dense_4h_to_h",
        activation="mlp.act",
        attention="attention",
        norm="LayerNorm",
        parts=(
            *("GPTNeoXForCausalLM", "GPTNeoXModel", "GPTNeoXLayer"),
            *("GPTNeoXAttention", "GPTNeoXMLP", "GPTNeoXRotaryEmbedding"),
        ),
        gated=False,
        bias=True,
    ),
}
"""Keyed by the configuration's ``model_type``."""


def architecture(config: Any) -> Architecture:
    """The row of a model's family.

    Args:
        config: a ``PretrainedConfig`` or anything with ``model_type``.

    Raises:
        ExciseError: the family is not in the table.
    """
    if config.model_type not in ARCHITECTURES:
        raise unknown("model type", config.model_type, ARCHITECTURES, where="model")
    return ARCHITECTURES[config.model_type]


def neuron_shape(config: Any) -> tuple[int, int]:
    """(layers, neurons per layer), from the configuration alone."""
    width = getattr(config, architecture(config).width)
    return config.num_hidden_layers, width if width is not None else 4 * config.hidden_size


def refuse_without_bias(model_type: str) -> None:
    """Refuse a family whose MLPs cannot have biases: a saved model has nowhere to keep the mean of a neuron.

    Raises:
        ExciseError: it is one.
    """
    if not ARCHITECTURES[model_type].bias:
        families = ", ".join(name for name, family in ARCHITECTURES.items() if family.bias)
        raise ExciseError(
            f"{model_type}: a neuron that is scaled about its mean (centre: mean) needs a bias in its MLP, and the "
            f"configuration of this family has none, so such a model cannot be saved (can be: {families}). Save none "
            "(export: null) and apply the neuron list in memory: excise.prune"
        )


def decoder_layers(model: "nn.Module") -> list["nn.Module"]:
    """The decoder layers, first to last."""
    return list(model.get_submodule(architecture(model.config).layers).children())


def _in_layers(model: "nn.Module", path: str) -> list["nn.Module"]:
    return [layer.get_submodule(path) for layer in decoder_layers(model)]


def output_projections(model: "nn.Module") -> list["nn.Module"]:
    """For each layer the projection whose input is the neuron activations, ``[..., neurons]``."""
    return _in_layers(model, architecture(model.config).output)


def input_projections(model: "nn.Module") -> list[tuple["nn.Module", ...]]:
    """For each layer the projections whose output rows are the neurons."""
    paths = architecture(model.config).inputs
    return [tuple(layer.get_submodule(path) for path in paths) for layer in decoder_layers(model)]


def activations(model: "nn.Module") -> list["nn.Module"]:
    """For each layer the module that applies the MLP's activation function."""
    return _in_layers(model, architecture(model.config).activation)


def attentions(model: "nn.Module") -> list["nn.Module"]:
    """For each layer the attention module."""
    return _in_layers(model, architecture(model.config).attention)
