"""Measured time of encoders side by side: never computed from a share or a mask."""

from collections.abc import Mapping, Sequence
from functools import partial

import torch

from excise.artefacts import Json
from excise.errors import ExciseError
from excise.evaluation.timing import clock, in_turns
from excise.models.encoder import Encoder, forward

SHAPES = ((1, 12), (32, 64))
"""(texts, tokens): a query, and a batch of documents."""


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
    found: Json = {}
    for texts, tokens in shapes:
        for name, encoder in encoders.items():
            if tokens > encoder.max_length:
                raise ExciseError(f"{name} reads {encoder.max_length} tokens; {texts}x{tokens} cannot be timed")
        passes = {name: partial(_one_pass, encoder, texts, tokens) for name, encoder in encoders.items()}
        times = in_turns(passes, rounds)
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
    now = clock(device)
    with torch.inference_mode():
        start = now()
        forward(encoder, rows, mask).cpu()  # .cpu() waits for an accelerator
        return 1000 * (now() - start)
