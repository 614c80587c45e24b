"""How plausible continuations are to a model: their negative log-likelihood given the prompt.

Read under the unpruned model, it tells a detoxified model from a broken one: text that the original model would never
have written is not an answer, however polite.
"""

from collections.abc import Sequence
from typing import Any

import torch

from excise.evaluation.generation import prefill
from excise.evaluation.likelihood import last_hidden, log_normaliser, token_nll
from excise.models.loading import input_device


def continuation_nll(
    model: Any,
    prompts: Sequence[Sequence[int]],
    continuations: Sequence[tuple[int, Sequence[int]]],
) -> list[float]:
    """Summed negative log-likelihood, in nats, of each continuation given its prompt.

    Each prompt is read once, whatever the number of its continuations; only the positions that predict a token of a
    continuation go through the head.

    Args:
        model: a causal language model in eval mode.
        prompts: token ids.
        continuations: pairs (index into ``prompts``, token ids); an empty one has 0.

    Returns:
        float64 sums, in the order of ``continuations``.
    """
    device = input_device(model)
    rows = torch.tensor([index for index, _ in continuations])
    lengths = torch.tensor([len(ids) for _, ids in continuations], device=device)
    longest = int(lengths.max())
    if longest == 0:
        return [0.0] * len(continuations)
    ids = torch.tensor([[*ids, *[0] * (longest - len(ids))] for _, ids in continuations], device=device)
    real = torch.arange(longest, device=device) < lengths[:, None]
    nll = torch.zeros(ids.shape, dtype=torch.float64)
    with torch.inference_mode():
        logits, cache, mask = prefill(model, prompts).expanded(rows)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        first = log_normaliser(logits) - logits.gather(-1, ids[:, :1])[:, 0]
        nll[:, 0] = first.cpu().double() * real[:, 0].cpu()
        if longest > 1:
            read = real[:, :-1]
            hidden = last_hidden(
                model,
                input_ids=ids[:, :-1],
                attention_mask=torch.cat([mask, read.long()], -1),
                # In the padding on the right the last position is repeated, so that none is beyond the model.
                position_ids=mask.sum(-1, keepdim=True) + (read.cumsum(-1) - 1).clamp(min=0),
                past_key_values=cache,
                use_cache=True,
            )
            predicts = real[:, 1:]
            nll[:, 1:][predicts.cpu()] = token_nll(model, hidden[predicts], ids[:, 1:][predicts])
    return [float(value) for value in nll.sum(-1)]
