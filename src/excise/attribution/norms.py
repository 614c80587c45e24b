"""Normalisation under the identity rule: the deviation is a constant of the backward pass.

Values are what the family's own class computes, in float32 or better; the gradient passes as through a diagonal linear
map, so relevance goes through unchanged (Achtibat et al. 2024; lxt does the same). Subtracting the mean,
in LayerNorm, is linear and stays in the gradient.
"""

from collections.abc import Callable
from typing import Any

import torch

from excise.attribution.backward import wide


def _inverse_deviation(value: torch.Tensor, epsilon: float) -> torch.Tensor:
    """1 / root mean square over the last dimension, as a constant of the backward pass."""
    with torch.no_grad():
        return torch.rsqrt(value.pow(2).mean(-1, keepdim=True) + epsilon)


def _llama_norm(module: Any, hidden: torch.Tensor) -> torch.Tensor:
    value = wide(hidden)
    value = value * _inverse_deviation(value, module.variance_epsilon)
    normed: torch.Tensor = module.weight * value.to(hidden.dtype)
    return normed


def _olmo_norm(module: Any, hidden: torch.Tensor) -> torch.Tensor:
    value = wide(hidden)
    value = value * _inverse_deviation(value, module.variance_epsilon)
    normed: torch.Tensor = module.weight * value
    return normed.to(hidden.dtype)


def _gemma_norm(module: Any, hidden: torch.Tensor) -> torch.Tensor:
    value = wide(hidden)
    value = value * _inverse_deviation(value, module.eps)
    return (value * (1.0 + wide(module.weight))).to(hidden.dtype)


def _layer_norm(module: Any, hidden: torch.Tensor) -> torch.Tensor:
    """LayerNorm; subtracting the mean is linear and stays in the gradient."""
    value = wide(hidden)
    value = value - value.mean(-1, keepdim=True)
    value = value * _inverse_deviation(value, module.eps)
    if module.weight is not None:
        value = value * module.weight
    if module.bias is not None:
        value = value + module.bias
    return value.to(hidden.dtype)


NORMS: dict[str, Callable[[Any, torch.Tensor], torch.Tensor]] = {
    **{f"{prefix}RMSNorm": _llama_norm for prefix in ("Llama", "Mistral", "Qwen2", "Qwen3", "Phi3")},
    **{f"{prefix}RMSNorm": _gemma_norm for prefix in ("Gemma", "Gemma2", "Gemma3")},
    "Olmo2RMSNorm": _olmo_norm,
    "LayerNorm": _layer_norm,
}
"""By the name of the class."""
