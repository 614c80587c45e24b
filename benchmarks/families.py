"""A tiny random model of every family, with everything switched on that could go wrong, and samples for it."""

from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from excise.attribution.batches import Sample

SMALL: dict[str, Any] = {
    "vocab_size": 61,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {"attention_bias": True, "mlp_bias": True},
    "mistral": {"sliding_window": 5},
    "qwen2": {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1},
    "qwen3": {"head_dim": 8, "tie_word_embeddings": True},
    "gemma": {"head_dim": 8},
    "gemma2": {
        "head_dim": 8,
        "sliding_window": 5,
        "query_pre_attn_scalar": 8,
        "attn_logit_softcapping": 2.0,
        "final_logit_softcapping": 3.0,
    },
    "gemma3_text": {"head_dim": 8, "sliding_window": 5, "query_pre_attn_scalar": 8, "sliding_window_pattern": 2},
    "olmo2": {},
    "phi3": {"pad_token_id": 0, "sliding_window": 5},
    "opt": {"ffn_dim": 24, "word_embed_proj_dim": 12, "dropout": 0.5},
    "gpt2": {"n_inner": 24, "attn_pdrop": 0.5, "scale_attn_by_inverse_layer_idx": True},
    "gpt_neox": {"rotary_pct": 0.5, "attention_dropout": 0.5},
}
"""What a tiny model of each family has beyond ``SMALL``: what could go wrong (windows, caps, biases, dropout, ties)."""


def tiny(family: str, *, attention: str | None = None, dtype: torch.dtype = torch.float64, **changes: object) -> Any:
    """A tiny random model with nothing at rest: large weights, random biases and norm weights.

    Args:
        family: key of ``FAMILIES``.
        attention: ``eager`` or ``sdpa``; the family's default where it is None.
        dtype: of the weights.
        changes: configuration entries.
    """
    config = AutoConfig.for_model(family, **{**SMALL, **FAMILIES[family], **changes})
    if attention is not None:
        config._attn_implementation = attention
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float64)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                scale = 0.3 if parameter.ndim > 1 or name.endswith("bias") else 0.1
                noise = torch.randn(parameter.shape, dtype=torch.float64) * scale
                parameter.copy_(noise if parameter.ndim > 1 or name.endswith("bias") else 1 + noise)
    return model.to(dtype).eval().requires_grad_(False)


def samples(count: int = 3) -> list[Sample]:
    """Random samples of 7, 9, 11, ... tokens, longer than the tiny models' windows."""
    generator = torch.Generator().manual_seed(1)
    lengths = [7 + 2 * index for index in range(count)]
    return [
        Sample(f"s{n}", tuple(torch.randint(3, 61, (n,), generator=generator).tolist()), target_start=n // 2)
        for n in lengths
    ]
