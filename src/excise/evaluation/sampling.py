"""Draw tokens: noise for every prompt, draw, position and token, and exact nucleus sampling with it.

The noise is a pure function of these and the seed. So the batch size, the order of the prompts and the number of shards
change nothing but floating-point noise in the logits. And what two models draw at one place is *coupled*: each takes
the token with the largest log-probability plus Gumbel noise, and the noise is the same for both. Equal distributions
give equal tokens, and similar ones mostly do: at a total variation distance of ``t`` at least ``(1 - t) / (1 + t)`` of
the draws agree, where no method can do better than ``1 - t``. A comparison prompt by prompt then shows what the models
differ in, and little of the luck of drawing.
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

Words = NDArray[np.uint64]


def stream(seed: int, prompt_id: str | int, draw: int, count: int) -> Words:
    """The first ``count`` words of the stream of one prompt and draw, one per position, ``[count]``.

    64 bits each, from SHAKE-256 over seed, prompt id and draw. A longer stream starts with the shorter one.
    """
    key = json.dumps([seed, prompt_id, draw]).encode()
    return np.frombuffer(hashlib.shake_256(key).digest(8 * count), dtype="<u8")


def gumbel(words: Words, tokens: NDArray[np.int64]) -> NDArray[np.float64]:
    """Standard Gumbel noise of some tokens, ``[rows]`` and ``[rows, k]`` -> ``[rows, k]``.

    A token's noise is ``-log(-log u)``, with ``u`` in (0, 1) from 53 bits of output number ``token`` of SplitMix64
    (Steele et al., OOPSLA 2014) that starts at the row's word.
    """
    state = words[:, None] + (tokens.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    state ^= state >> np.uint64(31)
    uniform = ((state >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53
    noise: NDArray[np.float64] = -np.log(-np.log(uniform))
    return noise


def sample(logits: Tensor, words: Words, *, temperature: float, top_p: float, first_k: int = FIRST_K) -> Tensor:
    """One token per row by nucleus sampling (Holtzman et al., ICLR 2020) and the Gumbel-max trick.

    The tokens are sorted by probability, ties by token id; the nucleus is the shortest prefix whose mass is at least
    ``top_p``; the token is the one of the nucleus with the largest log-probability plus Gumbel noise, which is a draw
    from the nucleus's own distribution.

    Only the ``k`` most probable tokens are sorted, and ``k`` grows for the rows whose nucleus is larger: the result is
    that of sorting the whole vocabulary, at a fraction of the time.

    Args:
        logits: ``[rows, vocabulary]``.
        words: one word of a stream per row, ``[rows]``.
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
        noise = torch.from_numpy(gumbel(words[pending.numpy()], ids.numpy()))
        outside = torch.arange(k) > last
        index = (values.double() + noise).masked_fill(outside, -torch.inf).argmax(-1, keepdim=True)
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
