"""Measured time of models side by side: never computed from a share or a mask."""

import random
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch

from excise.errors import ExciseError
from excise.evaluation.likelihood import head, last_hidden
from excise.models.loading import input_device

WARM_UP = 2
"""Passes of each that are not counted."""


def in_turns(passes: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """What each pass took, round by round; they take turns, so that a busy moment falls on all of them.

    Every round has an order of its own (the same ones each time): what a pass leaves in caches and in the allocator
    makes the next one faster or slower, by a tenth and more, and must not fall on the same one each round.

    Args:
        passes: functions that do the work and return what it took.
        rounds: passes of each that count, after ``WARM_UP`` that do not.

    Raises:
        ExciseError: ``rounds`` is below 1.
    """
    if rounds < 1:
        raise ExciseError(f"--rounds {rounds}: at least 1")
    times: dict[str, list[float]] = {name: [] for name in passes}
    order, shuffled = list(passes), random.Random(0)  # noqa: S311 (no secret)
    for number in range(WARM_UP + rounds):
        shuffled.shuffle(order)
        for name in order:
            taken = passes[name]()
            if number >= WARM_UP:
                times[name].append(taken)
    return times


def clock(device: torch.device) -> Callable[[], float]:
    """Seconds: the processor time of this process on the CPU, wall time on an accelerator."""
    return time.process_time if device.type == "cpu" else time.perf_counter


def prefill_and_decode(model: Any, prefill: int, decode: int) -> tuple[float, float]:
    """Seconds to read ``prefill`` tokens, and to write ``decode`` more, one at a time, with a cache; batch of one."""
    from transformers import DynamicCache

    device = input_device(model)
    now = clock(device)
    ids = (torch.arange(prefill, device=device) % (model.config.vocab_size - 1) + 1)[None]
    cache = DynamicCache(config=model.config)

    def step(tokens: torch.Tensor) -> torch.Tensor:
        hidden = last_hidden(model, input_ids=tokens, past_key_values=cache, use_cache=True)
        return head(model, hidden[:, -1]).argmax(-1)[:, None]

    with torch.inference_mode():
        start = now()
        token = step(ids)
        token.cpu()  # waits for an accelerator
        between = now()
        for _ in range(decode):
            token = step(token)
        token.cpu()
        return between - start, now() - between
