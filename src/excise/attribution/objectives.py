"""What a backward pass starts from: one number per sample, made from the logits at the positions that need them.

- ``last-max``: the largest logit at a sample's last token. What the model would say next, whatever the sample was.
- ``continuation``: the mean of the logits of the tokens that follow the prompt: for each token ``t`` from
  ``target_start`` on, the logit of ``t`` at the position before it. Why the model says what it said. A mean, because
  relevance is proportional to its target: with a sum, a window of 127 target tokens outweighs an answer of 20 by
  six to one, and R_general - R_toxic is R_general.
- ``continuation-sum``: the sum of the same logits.
- ``contrastive``: as ``continuation``, but each position is seeded with +1 on the target token and -1/V on each of
  the other ``V - 1`` entries of the vocabulary: why this token rather than an average one.

SparC3 does not say which it uses; the choice is recorded in every file.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from excise.attribution.batches import Batch
from excise.errors import ExciseError

Elementwise = Callable[[Callable[[torch.Tensor], torch.Tensor], torch.Tensor], torch.Tensor]
"""How an element-wise function is applied: plainly, or by LRP's identity rule."""


def plain(function: Callable[[torch.Tensor], torch.Tensor], value: torch.Tensor) -> torch.Tensor:
    """Apply a function and let its gradient be its gradient."""
    return function(value)


def differentiated(model: Any, hidden: torch.Tensor, batch: Batch, name: str, elementwise: Elementwise) -> torch.Tensor:
    """The scalar to differentiate, summed over the samples of a batch.

    Args:
        model: the causal language model (its head is used).
        hidden: last hidden states ``[samples, tokens, hidden]``, after the final norm.
        batch: the batch.
        name: one of ``attribution.OBJECTIVES``.
        elementwise: how logit soft-capping (Gemma 2) is applied.

    Returns:
        A scalar: the samples do not touch each other, so its gradient holds each sample's own.
    """
    batch = batch.to(hidden.device)  # the last of several, where a model is spread
    if name == "last-max":
        last = batch.mask.sum(1) - 1
        states = hidden[torch.arange(len(last), device=last.device), last]
        return capped(model, head(model)(states), elementwise).amax(-1).sum()
    rows, columns = continuation_positions(batch)
    states, tokens = hidden[rows, columns - 1], batch.input_ids[rows, columns]
    precise = torch.promote_types(states.dtype, torch.float32)
    share = 1 / rows.bincount(minlength=len(batch.ids))[rows].to(precise)  # of each position in its sample's mean
    if name in ("continuation", "continuation-sum"):
        # Only the rows of the head that are asked for: a sample's positions x vocabulary would be the largest tensor.
        logits = capped(model, chosen_logits(model, states, tokens), elementwise)
        return logits.sum() if name == "continuation-sum" else (logits * share).sum()
    if name == "contrastive":
        logits = capped(model, head(model)(states), elementwise)
        chosen = logits.gather(-1, tokens[:, None])[:, 0]
        contrast = chosen * (1 + 1 / logits.shape[-1]) - logits.mean(-1)
        return (contrast * share).sum()
    raise ExciseError(f"unknown objective {name!r}")


def continuation_positions(batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """(sample, position) of every token of a continuation, row by row."""
    positions = torch.arange(batch.mask.shape[1], device=batch.mask.device)
    inside = batch.mask & (positions >= batch.target_start[:, None])
    rows, columns = inside.nonzero(as_tuple=True)
    return rows, columns


def head(model: Any) -> nn.Module:
    """The output projection onto the vocabulary."""
    module: nn.Module = model.get_output_embeddings()
    return module


def chosen_logits(model: Any, states: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """The logits of ``tokens`` at ``states``, ``[positions]``, in float32 or better."""
    projection = head(model)
    weight = projection.get_parameter("weight")
    if weight.is_meta:  # offloaded: only the module itself can bring its weights back
        everything: torch.Tensor = projection(states)
        return everything.gather(-1, tokens[:, None])[:, 0]
    precise = torch.promote_types(states.dtype, torch.float32)
    states, tokens = states.to(weight.device), tokens.to(weight.device)
    logits = (states.to(precise) * weight[tokens].to(precise)).sum(-1)
    bias = getattr(projection, "bias", None)
    return logits if bias is None else logits + bias[tokens].to(precise)


def capped(model: Any, logits: torch.Tensor, elementwise: Elementwise) -> torch.Tensor:
    """Logits after the family's soft-capping ``cap * tanh(logit / cap)``, if it has one."""
    cap = getattr(model.config, "final_logit_softcapping", None)
    return logits if cap is None else elementwise(lambda value: torch.tanh(value / cap) * cap, logits)
