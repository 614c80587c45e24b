"""Perplexity by named protocol; numbers of different protocols are not comparable, so the name stands in every result.

Both protocols tokenise the joined text once and count each predicted token once.

- ``windows`` (SparseGPT, Wanda, SparC3): non-overlapping windows; the tail that fills no window is dropped; of each
  window all tokens but the first are predicted.
- ``sliding`` (Hugging Face's recipe, the public reproduction of SparC3): windows that start every ``stride`` tokens, of
  which only the tokens not yet counted are: the last ``stride`` ones, in the first window all but the first. The last
  window is shorter. Empty documents are dropped before joining.

A model of a family that needs the token that begins a text in every window (Gemma) reads it in place of the first token
of each window, which is then not seen; so windows keep their places, lengths and predicted tokens. The protocol's name
says so: it ends in ``-bos``.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from excise.errors import ExciseError
from excise.evaluation.likelihood import NOT_FINITE_HINT, last_hidden, token_nll
from excise.models.loading import input_device

PROTOCOLS = ("windows", "sliding")


class Window(NamedTuple):
    """Tokens ``begin`` to ``end`` are read, those from ``first`` on are predicted; positions in the text."""

    begin: int
    end: int
    first: int


class Loss(NamedTuple):
    """Of one window: sum of the negative log-likelihood in nats, and the number of predicted tokens."""

    nll: float
    tokens: int


def protocol_name(
    protocol: str, *, seqlen: int, stride: int, windows: int | None, skip: int = 0, begins: bool = False
) -> str:
    """``windows-2048`` (whole text), ``windows-512x12-skip-24`` (12 windows after 24 others), ``sliding-2048-512``.

    ``begins``: each window begins with the token that begins a text: ``windows-2048-bos``.
    """
    name = f"windows-{seqlen}" if protocol == "windows" else f"sliding-{seqlen}-{stride}"
    return (
        (name if windows is None else f"{name}x{windows}")
        + (f"-skip-{skip}" if skip else "")
        + ("-bos" if begins else "")
    )


def join(documents: Sequence[str], separator: str, *, protocol: str) -> str:
    """The one text that is tokenised."""
    return separator.join(text for text in documents if protocol == "windows" or text.strip())


def plan(tokens: int, protocol: str, *, seqlen: int, stride: int, windows: int | None, skip: int = 0) -> list[Window]:
    """The windows of a text.

    Args:
        tokens: length of the text.
        protocol: one of ``PROTOCOLS``.
        seqlen: tokens that a window holds.
        stride: step of the sliding protocol.
        windows: use only the first so many; None uses all.
        skip: leave out so many before them.

    Raises:
        ExciseError: the text is shorter than asked for, or a number is out of range.
    """
    if seqlen < 2:
        raise ExciseError(f"--seqlen {seqlen}: must be at least 2, the first token of a window is not predicted")
    if windows is not None and windows < 1:
        raise ExciseError(f"--windows {windows}: must be at least 1")
    if skip < 0:
        raise ExciseError(f"--skip {skip}: must not be negative")
    if protocol == "windows":
        found = [Window(begin, begin + seqlen, begin + 1) for begin in range(0, tokens - seqlen + 1, seqlen)]
    else:
        if not 1 <= stride <= seqlen:
            raise ExciseError(f"--stride {stride}: must be at least 1 and at most --seqlen ({seqlen})")
        found, counted = [], 0
        for begin in range(0, tokens, stride):
            end = min(begin + seqlen, tokens)
            found.append(Window(begin, end, max(counted, begin + 1)))
            counted = end
            if end == tokens:
                break
    if tokens < seqlen:
        raise ExciseError(f"the text has {tokens} tokens, less than one window of {seqlen}; use a smaller --seqlen")
    if len(found) < skip + (windows or 1):
        raise ExciseError(
            f"the text has {tokens} tokens: {len(found)} windows of {seqlen}, fewer than the {skip + (windows or 1)} "
            "asked for" + (f" ({skip} of them skipped)" if skip else "")
        )
    return found[skip:][:windows]


def loss(
    model: Any,
    ids: Tensor,
    windows: Sequence[Window],
    *,
    first: int | None = None,
    batch_size: int,
    done: Callable[[int], None] | None = None,
) -> list[Loss]:
    """Run the model over the windows.

    Args:
        model: a causal language model in eval mode.
        ids: the text's token ids, ``[tokens]``, on any device.
        windows: from ``plan``.
        first: token id that every window begins with, in place of its first token; None leaves that.
        batch_size: windows per forward pass.
        done: called with the number of windows finished.

    Returns:
        One a window, in their order, accumulated in float64.

    Raises:
        ExciseError: the loss is not a finite number.
    """
    if batch_size < 1:
        raise ExciseError(f"--batch-size {batch_size}: must be at least 1")
    losses: list[Loss] = []
    with torch.inference_mode():
        for (_, start), group in itertools.groupby(windows, key=lambda w: (w.end - w.begin, w.first - w.begin)):
            same = list(group)
            for at in range(0, len(same), batch_size):
                part = same[at : at + batch_size]
                batch = torch.stack([ids[window.begin : window.end] for window in part]).to(input_device(model))
                if first is not None:
                    batch[:, 0] = first
                hidden = last_hidden(model, input_ids=batch, use_cache=False)
                nll = token_nll(model, hidden[:, start - 1 : -1].flatten(0, 1), batch[:, start:].flatten())
                if not torch.isfinite(nll).all():
                    raise ExciseError(
                        f"tokens {part[0].begin} to {part[-1].end}: the loss is not a finite number. {NOT_FINITE_HINT}"
                    )
                losses += [Loss(float(one.sum()), len(one)) for one in torch.split(nll, len(nll) // len(part))]
                if done is not None:
                    done(len(part))
    return losses
