"""The rules of LRP as the papers write them, module by module: they share no code with the engine."""

from typing import Any

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from benchmarks.recording import Attention, share
from excise.attribution.batches import Batch


def naive_linear(module: nn.Module, value: torch.Tensor, relevance_out: torch.Tensor) -> torch.Tensor:
    """LRP-0: R_j = sum_i w_ij x_j R_i / z_i, the bias being one of the z's terms (Bach et al. 2015)."""
    parameter = module.get_parameter("weight")
    weight = parameter.T if isinstance(module, Conv1D) else parameter.detach()
    bias = getattr(module, "bias", None)
    terms = value[..., None, :] * weight  # [..., out, in]
    z = terms.sum(-1) + (0 if bias is None else bias)
    return (terms / z[..., None] * relevance_out[..., None]).sum(-2)


def naive_norm(module: Any, value: torch.Tensor, relevance_out: torch.Tensor) -> torch.Tensor:
    """Identity rule for RMSNorm (R_in = R_out); LayerNorm = a centring linear map and a bias around it."""
    if not isinstance(module, nn.LayerNorm):
        return relevance_out
    width = value.shape[-1]
    centred = value - value.mean(-1, keepdim=True)
    deviation = (centred.pow(2).mean(-1, keepdim=True) + module.eps).sqrt()
    scaled = centred / deviation * module.weight
    before_bias = relevance_out * scaled / (scaled + module.bias)
    centring = torch.eye(width, dtype=value.dtype) - 1 / width
    terms = value[..., None, :] * centring
    return (terms / centred[..., None] * before_bias[..., None]).sum(-2)


def naive_attention(
    model: Any, layer: int, call: Attention, batch: Batch
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Relevance of queries, keys and values: AttnLRP's rules for A V, softmax and Q K, in loops over samples and heads.

    The mask is written from its definition (causal, windowed, no padding), not taken from the model.
    """
    relevance_out = share(call.output).transpose(1, 2)  # [samples, heads, tokens, width]
    query, key, value = (tensor.detach() for tensor in (call.query, call.key, call.value))
    groups = query.shape[1] // key.shape[1]
    shares = [torch.zeros_like(tensor) for tensor in (query, key, value)]
    scaling = call.options.get("scaling")
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    cap, window = call.options.get("softcap"), window_of(model, layer)
    tokens = query.shape[2]
    for sample in range(query.shape[0]):
        for head in range(query.shape[1]):
            q, k, v = query[sample, head], key[sample, head // groups], value[sample, head // groups]
            products = q[:, None, :] * k[None, :, :] * scaling  # [queries, keys, width]
            raw = products.sum(-1)
            scores = raw if cap is None else torch.tanh(raw / cap) * cap
            i, j = torch.meshgrid(torch.arange(tokens), torch.arange(tokens), indexing="ij")
            seen = (j <= i) & batch.mask[sample][None, :]
            seen &= (i - j < window) if window is not None else True
            weights = torch.where(seen, scores, -torch.inf).softmax(-1)
            # A V: uniform rule, half of each term's relevance to either factor.
            terms = weights[:, :, None] * v[None, :, :]  # [queries, keys, width]
            z = terms.sum(1, keepdim=True)
            to_terms = terms / z * relevance_out[sample, head][:, None, :]
            to_weights, to_values = to_terms.sum(-1) / 2, to_terms.sum(0) / 2
            # Softmax: R_i = x_i (R_i^out - s_i sum R^out); capping: identity rule.
            to_scores = scores * (to_weights - weights * to_weights.sum(-1, keepdim=True))
            to_scores = torch.where(seen, to_scores, 0.0)
            to_products = products / raw[..., None] * to_scores[..., None] / 2
            shares[0][sample, head] += to_products.sum(1)
            shares[1][sample, head // groups] += to_products.sum(0)
            shares[2][sample, head // groups] += to_values
    return shares[0], shares[1], shares[2]


def window_of(model: Any, layer: int) -> int | None:
    """Tokens that a layer's attention sees at most, from the configuration."""
    config = model.config
    window: int | None = getattr(config, "sliding_window", None)
    kinds = getattr(config, "layer_types", None)
    return window if kinds is None or kinds[layer] == "sliding_attention" else None
