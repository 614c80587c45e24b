"""Draw tokens: a random stream for every prompt and draw, and exact nucleus sampling from it.

The stream is a pure function of seed, prompt and draw, and one number is used per token. So the batch size, the order
of the prompts and the number of shards change nothing but floating-point noise in the logits.
"""

import hashlib
import json

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from excise.errors import ExciseError
from excise.evaluation.likelihood import NOT_FINITE_HINT, log_normaliser

FIRST_K = 512
"""How many of the most probable tokens are looked at first; grows where they do not hold the nucleus."""

GROWTH = 4


def uniforms(seed: int, prompt_id: str | int, draw: int, count: int) -> NDArray[np.float64]:
    """The first ``count`` numbers of the stream of one prompt and draw, uniform on [0, 1), ``[count]``.

    53 bits each, from SHAKE-256 over seed, prompt id and draw. A longer table starts with the shorter one.
    """
    key = json.dumps([seed, prompt_id, draw]).encode()
    words = np.frombuffer(hashlib.shake_256(key).digest(8 * count), dtype="<u8")
    return (words >> np.uint64(11)).astype(np.float64) * 2.0**-53


def sample(logits: Tensor, uniform: Tensor, *, temperature: float, top_p: float, first_k: int = FIRST_K) -> Tensor:
    """One token per row by nucleus sampling (Holtzman et al., ICLR 2020) and the inverse distribution function.

    The tokens are sorted by probability, ties by token id; the nucleus is the shortest prefix whose mass is at least
    ``top_p``; the token is the first one at which the cumulative mass exceeds ``uniform`` times that of the nucleus.

    Only the ``k`` most probable tokens are sorted, and ``k`` grows for the rows whose nucleus is larger: the result is
    that of sorting the whole vocabulary, at a fraction of the time.

    Args:
        logits: ``[rows, vocabulary]``.
        uniform: one number in [0, 1) per row, float64, ``[rows]``.
        temperature: logits are divided by it; above 0.
        top_p: mass of the nucleus, above 0 and at most 1.
        first_k: first value of ``k``; changes nothing but the time.

    Returns:
        Token ids, int64, on the CPU, ``[rows]``.

    Raises:
        ExciseError: the logits of a row are no distribution: one is infinite or not a number.
    """
    scaled = logits.to(torch.promote_types(logits.dtype, torch.float32))
    if temperature != 1:
        scaled = scaled / temperature
    normaliser = log_normaliser(scaled).cpu().double()
    if not torch.isfinite(normaliser).all():
        raise ExciseError(
            "the model gives logits that are not finite numbers; nothing can be sampled from it. "
            f"{NOT_FINITE_HINT} (Gemma 2 in float64 needs --batch-size 1.)"
        )
    rows, vocabulary = scaled.shape
    tokens = torch.empty(rows, dtype=torch.long)
    pending = torch.arange(rows)
    k = vocabulary if top_p >= 1 else min(first_k, vocabulary)
    while len(pending):
        part = scaled if len(pending) == rows else scaled[pending.to(scaled.device)]
        values, ids = _sorted_top(part, k)
        cumulative = (values.double() - normaliser[pending, None]).exp().cumsum(-1)
        last = (cumulative < top_p).sum(-1).clamp(max=k - 1)[:, None]
        # Beyond the k-th value there may be tokens that equal it: the nucleus is known only if it ends above.
        known = torch.ones(len(pending), dtype=torch.bool)
        if k < vocabulary:
            known = (values.gather(1, last) > values[:, -1:])[:, 0]
        target = uniform[pending, None] * cumulative.gather(1, last)
        index = (cumulative <= target).sum(-1, keepdim=True).minimum(last)
        tokens[pending[known]] = ids.gather(1, index)[known, 0]
        pending = pending[~known]
        k = min(k * GROWTH, vocabulary)
    return tokens


def _sorted_top(logits: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Values and ids of the ``k`` largest logits of each row, by falling value, ties by rising id; on the CPU."""
    values, ids = (tensor.cpu() for tensor in logits.topk(k, sorted=False))
    ids, order = ids.sort(-1)
    values, order = values.gather(1, order).sort(dim=-1, descending=True, stable=True)
    return values, ids.gather(1, order)
