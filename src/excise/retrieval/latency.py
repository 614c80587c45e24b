"""Measured time of encoders side by side: never computed from a share or a mask."""

import time
from collections.abc import Mapping, Sequence

import torch

from excise.artefacts import Json
from excise.errors import ExciseError
from excise.models.encoder import Encoder, forward

SHAPES = ((1, 12), (32, 64))
"""(texts, tokens): a query, and a batch of documents."""

_WARM_UP = 2


def measure(encoders: Mapping[str, Encoder], *, rounds: int, shapes: Sequence[tuple[int, int]] = SHAPES) -> Json:
    """Processor milliseconds of one batch, for encoders that take turns, so that a busy moment falls on all of them.

    Args:
        encoders: by name; the first is the one that the others are compared with.
        rounds: timed passes of each, after two that are not.
        shapes: (texts, tokens) of the batches.

    Returns:
        ``{"1x12": {name: {"milliseconds": median, "lowest": ..., "speedup": median of the first / median, "rounds":
        [...]}}}``. The processor time of this process, on the CPU; wall time on an accelerator.

    Raises:
        ExciseError: ``rounds`` is below 1, or a shape is longer than an encoder reads.
    """
    if rounds < 1:
        raise ExciseError(f"--rounds {rounds}: at least 1")
    found: Json = {}
    for texts, tokens in shapes:
        for name, encoder in encoders.items():
            if tokens > encoder.max_length:
                raise ExciseError(f"{name} reads {encoder.max_length} tokens; {texts}x{tokens} cannot be timed")
        times: dict[str, list[float]] = {name: [] for name in encoders}
        for number in range(_WARM_UP + rounds):
            for name, encoder in encoders.items():
                taken = _one_pass(encoder, texts, tokens)
                if number >= _WARM_UP:
                    times[name].append(taken)
        medians = {name: float(torch.tensor(each).double().median()) for name, each in times.items()}
        first = next(iter(medians.values()))
        found[f"{texts}x{tokens}"] = {
            name: {
                "milliseconds": median,
                "lowest": min(times[name]),
                "speedup": first / median,
                "rounds": times[name],
            }
            for name, median in medians.items()
        }
    return found


def _one_pass(encoder: Encoder, texts: int, tokens: int) -> float:
    """Milliseconds of one batch of arbitrary tokens."""
    device = next(encoder.model.parameters()).device
    rows = (
        torch.arange(texts * tokens, device=device).reshape(texts, tokens) % (encoder.model.config.vocab_size - 1) + 1
    )
    mask = torch.ones_like(rows)
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    with torch.inference_mode():
        start = clock()
        forward(encoder, rows, mask).cpu()  # .cpu() waits for an accelerator
        return 1000 * (clock() - start)
