"""Where a model family keeps its layers, its MLP neurons and its attention heads: one table, one row per family.

A *neuron* is one intermediate channel of an MLP: row ``i`` of every input projection (up, and gate where there
is one), and column ``i`` of the output projection. Its activation is input ``i`` of the output projection.

A *head* is a block of ``head_dim`` input channels of the attention's output projection, in the order of the query
heads, exactly as a neuron is one input channel of the MLP's.
"""

from dataclasses import dataclass, replace
from typing import Any

from excise.errors import ExciseError


@dataclass(frozen=True)
class Attention:
    """The attention of one family; paths are inside a layer.

    Attributes:
        module: path of the attention module.
        query: path of the projection that makes the queries. One projection may make all three (``layout``).
        key: the same for the keys.
        value: the same for the values.
        output: path of the projection whose input channels are the heads, ``head_dim`` each.
        layout: how the three share output rows: ``separate`` projections; one projection with three ``blocks``, the
            queries of all heads first, then keys, then values; or one that is ``interleaved``: query, key and value of
            the first head, then of the second.
        bias: whether the output projection has a bias: always, never, or as the named configuration entry says.
        heads: configuration entry with the number of query heads.
        key_value_heads: the same for keys and values; None where the family has as many as query heads.
        head_dim: the same for the channels of a head; None where it is always hidden size / heads.
    """

    module: str = "self_attn"
    query: str = "self_attn.q_proj"
    key: str = "self_attn.k_proj"
    value: str = "self_attn.v_proj"
    output: str = "self_attn.o_proj"
    layout: str = "separate"
    bias: bool | str = False
    heads: str = "num_attention_heads"
    key_value_heads: str | None = "num_key_value_heads"
    head_dim: str | None = "head_dim"


@dataclass(frozen=True)
class Norms:
    """The normalisation modules of one family.

    Attributes:
        attention: path, inside a layer, of the norm that belongs to the attention; None where there is none.
        mlp: the same for the MLP.
        attention_write: path of the norm of what the attention adds to the residual stream, where there is one.
        mlp_write: the same for the MLP.
        final: path, inside the model, of the norm after the last layer; empty where the family has none.
        first: ``attention`` and ``mlp`` come before their part; otherwise after the residual sum (BERT, OPT 350M).
            True, False, or the name of a configuration entry.
    """

    attention: str | None = "input_layernorm"
    mlp: str | None = "post_attention_layernorm"
    attention_write: str | None = None
    mlp_write: str | None = None
    final: str = "model.norm"
    first: bool | str = True


@dataclass(frozen=True)
class Architecture:
    """One model family.

    Attributes:
        layers: path of the list of layers inside the model.
        embedding: path of the token embeddings inside the model.
        inputs: paths, inside a layer, of the projections whose output rows are the neurons.
        output: path, inside a layer, of the projection whose input columns are the neurons.
        activation: path, inside a layer, of the MLP's element-wise activation function.
        attention: where the attention is.
        norms: where the normalisation is.
        norm: class of the normalisation modules.
        parts: classes of the other modules with a computation of their own, as the rules of LRP know it:
            a model with a class that is neither here nor a plain linear map is refused.
        gated: the activation is multiplied by the output of an up projection.
        fused: how many blocks of neurons each input projection stacks along its rows (2 for gate_up_proj).
        transposed: the projections are ``Conv1D``: their weight is stored input x output.
        bias: whether the projections have biases: always, never, or as the named configuration entry says.
        width: name of the configuration entry that holds the number of neurons of a layer.
        parallel: attention and MLP read the same residual stream: True, False, or the name of a configuration entry.
        causal: no token sees a later one; False for encoders.
        bos: the model needs the token that begins a text in every window: without it Gemma's perplexity doubles.
    """

    layers: str
    embedding: str
    inputs: tuple[str, ...]
    output: str
    activation: str
    attention: Attention
    norms: Norms
    norm: str
    parts: tuple[str, ...]
    gated: bool = True
    fused: int = 1
    transposed: bool = False
    bias: bool | str = False
    width: str = "intermediate_size"
    parallel: bool | str = False
    causal: bool = True
    bos: bool = False


_WRITE_NORMS = Norms(
    mlp="pre_feedforward_layernorm",
    attention_write="post_attention_layernorm",
    mlp_write="post_feedforward_layernorm",
)
"""Four norms per layer, as in Gemma 2 and 3."""


def _gated(prefix: str, *more: str, bias: bool | str = "attention_bias", norms: Norms | None = None) -> Architecture:
    """A family in the image of Llama, whose classes start with ``prefix``."""
    names = ("ForCausalLM", "Model", "DecoderLayer", "Attention", "MLP", "RotaryEmbedding")
    return Architecture(
        layers="model.layers",
        embedding="model.embed_tokens",
        inputs=("mlp.gate_proj", "mlp.up_proj"),
        output="mlp.down_proj",
        activation="mlp.act_fn",
        attention=Attention(bias=bias),
        norms=norms or Norms(),
        norm=f"{prefix}RMSNorm",
        parts=(*(prefix + name for name in names), *more),
    )


ARCHITECTURES: dict[str, Architecture] = {
    "llama": replace(_gated("Llama"), bias="mlp_bias"),
    "mistral": _gated("Mistral", bias=False),
    "qwen2": _gated("Qwen2", bias=False),
    "qwen3": _gated("Qwen3"),
    "gemma": replace(_gated("Gemma", "GemmaTextScaledWordEmbedding"), bos=True),
    "gemma2": replace(_gated("Gemma2", "Gemma2TextScaledWordEmbedding", norms=_WRITE_NORMS), bos=True),
    "gemma3_text": replace(
        _gated("Gemma3", "Gemma3TextModel", "Gemma3TextScaledWordEmbedding", norms=_WRITE_NORMS), bos=True
    ),
    "olmo2": _gated("Olmo2", norms=replace(_WRITE_NORMS, attention=None, mlp=None)),
    "phi3": replace(
        _gated("Phi3"),
        inputs=("mlp.gate_up_proj",),
        activation="mlp.activation_fn",
        fused=2,
        attention=Attention(
            query="self_attn.qkv_proj", key="self_attn.qkv_proj", value="self_attn.qkv_proj", layout="blocks"
        ),
    ),
    "opt": Architecture(
        layers="model.decoder.layers",
        embedding="model.decoder.embed_tokens",
        inputs=("fc1",),
        output="fc2",
        activation="activation_fn",
        attention=Attention(output="self_attn.out_proj", bias="enable_bias", key_value_heads=None, head_dim=None),
        norms=Norms(
            attention="self_attn_layer_norm",
            mlp="final_layer_norm",
            final="model.decoder.final_layer_norm",
            first="do_layer_norm_before",
        ),
        norm="LayerNorm",
        parts=(
            *("OPTForCausalLM", "OPTModel", "OPTDecoder", "OPTDecoderLayer"),
            *("OPTAttention", "OPTLearnedPositionalEmbedding"),
        ),
        gated=False,
        bias="enable_bias",
        width="ffn_dim",
    ),
    "gpt2": Architecture(
        layers="transformer.h",
        embedding="transformer.wte",
        inputs=("mlp.c_fc",),
        output="mlp.c_proj",
        activation="mlp.act",
        attention=Attention(
            module="attn",
            query="attn.c_attn",
            key="attn.c_attn",
            value="attn.c_attn",
            output="attn.c_proj",
            layout="blocks",
            bias=True,
            key_value_heads=None,
            head_dim=None,
        ),
        norms=Norms(attention="ln_1", mlp="ln_2", final="transformer.ln_f"),
        norm="LayerNorm",
        parts=("GPT2LMHeadModel", "GPT2Model", "GPT2Block", "GPT2Attention", "GPT2MLP"),
        gated=False,
        transposed=True,
        bias=True,
        width="n_inner",
    ),
    "gpt_neox": Architecture(
        layers="gpt_neox.layers",
        embedding="gpt_neox.embed_in",
        inputs=("mlp.dense_h_to_4h",),
        output="mlp.dense_4h_to_h",
        activation="mlp.act",
        attention=Attention(
            module="attention",
            query="attention.query_key_value",
            key="attention.query_key_value",
            value="attention.query_key_value",
            output="attention.dense",
            layout="interleaved",
            bias="attention_bias",
            key_value_heads=None,
            head_dim=None,
        ),
        norms=Norms(final="gpt_neox.final_layer_norm"),
        norm="LayerNorm",
        parts=(
            *("GPTNeoXForCausalLM", "GPTNeoXModel", "GPTNeoXLayer"),
            *("GPTNeoXAttention", "GPTNeoXMLP", "GPTNeoXRotaryEmbedding"),
        ),
        gated=False,
        bias=True,
        parallel="use_parallel_residual",
    ),
}
"""Causal language models, keyed by the configuration's ``model_type``."""


def _bert(prefix: str) -> Architecture:
    """An encoder in the image of BERT, whose classes start with ``prefix``; it has no norm after its last layer."""
    names = ("Model", "Embeddings", "Encoder", "Layer", "Attention", "SelfAttention", "SelfOutput", "Intermediate")
    return Architecture(
        layers="encoder.layer",
        embedding="embeddings.word_embeddings",
        inputs=("intermediate.dense",),
        output="output.dense",
        activation="intermediate.intermediate_act_fn",
        attention=Attention(
            module="attention.self",
            query="attention.self.query",
            key="attention.self.key",
            value="attention.self.value",
            output="attention.output.dense",
            bias=True,
            key_value_heads=None,
            head_dim=None,
        ),
        norms=Norms(attention="attention.output.LayerNorm", mlp="output.LayerNorm", final="", first=False),
        norm="LayerNorm",
        parts=tuple(prefix + name for name in (*names, "Output")),
        gated=False,
        bias=True,
        causal=False,
    )


ENCODERS: dict[str, Architecture] = {
    "bert": _bert("Bert"),
    "roberta": _bert("Roberta"),
    "xlm-roberta": _bert("XLMRoberta"),
}
"""Encoders, whose tokens see each other, keyed by the configuration's ``model_type``."""


def architecture(config: Any) -> Architecture:
    """The row of a model's family, causal language model or encoder.

    Args:
        config: a ``PretrainedConfig`` or anything with ``model_type``.

    Raises:
        ExciseError: the family is not in the tables.
    """
    families = ARCHITECTURES | ENCODERS
    if config.model_type not in families:
        inner = getattr(config, "text_config", None)
        why = (
            f" It is a model of text and other things; its text part ({inner.model_type}) would have to be saved as a "
            "model of its own."
            if inner is not None and hasattr(config, "vision_config")
            else ""
        )
        raise ExciseError(  # no nearest spelling: another family is another model
            f"model: unknown model type {config.model_type!r}.{why} Allowed: {', '.join(sorted(families))}."
        )
    return families[config.model_type]


def refuse_other_order(config: Any, *, causal: bool, where: object) -> None:
    """Refuse an encoder where a causal language model is needed, and the other way round.

    Raises:
        ExciseError: it is the other one; names both.
    """
    if architecture(config).causal == causal:
        return
    if causal:
        raise ExciseError(
            f"{where}: {config.model_type} is an encoder; this needs a causal language model "
            f"({', '.join(ARCHITECTURES)}). For encoders there are importance, shrink and retrieve."
        )
    raise ExciseError(
        f"{where}: {config.model_type} is a causal language model; this needs an encoder ({', '.join(ENCODERS)})"
    )


def neuron_shape(config: Any) -> tuple[int, int]:
    """(layers, neurons per layer), from the configuration alone."""
    width = getattr(config, architecture(config).width)
    return config.num_hidden_layers, width if width is not None else 4 * config.hidden_size


def head_shape(config: Any) -> tuple[int, int, int, int]:
    """(layers, query heads per layer, key-value heads per layer, channels per head), from the configuration alone."""
    row = architecture(config).attention
    heads: int = getattr(config, row.heads)
    grouped = getattr(config, row.key_value_heads, None) if row.key_value_heads else None
    explicit = getattr(config, row.head_dim, None) if row.head_dim else None
    return config.num_hidden_layers, heads, grouped or heads, explicit or config.hidden_size // heads


def is_parallel(config: Any) -> bool:
    """Attention and MLP of a layer read the same residual stream, and both writes are added to it."""
    return _setting(config, architecture(config).parallel)


def norms_first(config: Any) -> bool:
    """The norms come before attention and MLP, not after the residual sums."""
    return _setting(config, architecture(config).norms.first)


def _setting(config: Any, value: bool | str) -> bool:
    """True, False, or what the named entry of the configuration says."""
    return bool(getattr(config, value)) if isinstance(value, str) else value


@dataclass(frozen=True)
class HeadRows:
    """Which output rows of a projection make the queries, the keys or the values.

    Attributes:
        path: of the projection, inside a layer.
        heads: for each head (key-value head for keys and values) its ``head_dim`` rows.
    """

    path: str
    heads: tuple[range, ...]


def attention_rows(config: Any) -> dict[str, HeadRows]:
    """Where ``query``, ``key`` and ``value`` of every head are made; the same in all layers.

    With grouped queries, query heads ``g * n`` to ``(g + 1) * n - 1`` read key-value head ``g``, where ``n`` is the
    number of query heads per key-value head.
    """
    row = architecture(config).attention
    _, heads, grouped, size = head_shape(config)
    counts = {"query": heads, "key": grouped, "value": grouped}
    found, start = {}, 0
    for place, (name, count) in enumerate(counts.items()):
        first, step = (place * size, 3 * size) if row.layout == "interleaved" else (start, size)
        starts = [first + head * step for head in range(count)]
        found[name] = HeadRows(getattr(row, name), tuple(range(at, at + size) for at in starts))
        start += count * size if row.layout == "blocks" else 0
    return found
