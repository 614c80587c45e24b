"""Which weights a pattern prunes: exact counts, and one rule for ties.

Two patterns. A *share* prunes ``floor(share x size)`` weights of every comparison group: a row, a matrix, or all maps
of a layer. *N:M* keeps N of every M consecutive inputs of a row (N = kept, as NVIDIA, ALPS and MaskLLM count; Wanda,
SparseGPT and RIA count the pruned ones). Of equal scores the lower (row, column) goes first.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor

from excise.errors import ExciseError, unknown

GROUPS = ("row", "matrix", "layer")


@dataclass(frozen=True)
class Share:
    """Prune this share of every comparison group (one of ``GROUPS``); exact, hence a fraction."""

    share: Fraction
    group: str

    def __str__(self) -> str:
        return f"{float(self.share):g} of each {self.group} pruned"

    @property
    def pruned(self) -> Fraction:
        """Share of the weights that is pruned."""
        return self.share


@dataclass(frozen=True)
class KeepNofM:
    """Keep ``kept`` of every ``size`` consecutive inputs of each row."""

    kept: int
    size: int

    def __str__(self) -> str:
        return f"{self.kept} of {self.size} kept"

    @property
    def pruned(self) -> Fraction:
        """Share of the weights that is pruned."""
        return 1 - Fraction(self.kept, self.size)


Pattern = Share | KeepNofM


def parse(text: str, group: str) -> Pattern:
    """``"0.5"`` or ``"50%"``: a share of each group; ``"2:4"``: two of four kept.

    Args:
        text: the pattern.
        group: one of ``GROUPS``; N:M has groups of its own.

    Raises:
        ExciseError: it is neither, or out of range.
    """
    if group not in GROUPS:
        raise unknown("comparison group", group, GROUPS, where="--group")
    kept, colon, size = text.partition(":")
    try:
        if colon:
            pattern: Pattern = KeepNofM(int(kept), int(size))
        else:
            pattern = Share(Fraction(text.removesuffix("%")) / (100 if text.endswith("%") else 1), group)
    except (ValueError, ZeroDivisionError):
        raise ExciseError(f"--pattern {text!r}: must be a share to prune (0.5, 50%) or N:M with N kept (2:4)") from None
    if not 0 < pattern.pruned < 1 or (isinstance(pattern, KeepNofM) and pattern.kept < 1):
        raise ExciseError(f"--pattern {text!r}: must prune some weights and keep some: 0 < share < 1, 0 < N < M")
    return pattern


def check_divides(pattern: Pattern, width: int, name: str) -> None:
    """Refuse N:M on a map whose number of inputs is no multiple of M.

    Raises:
        ExciseError: it is none.
    """
    if isinstance(pattern, KeepNofM) and width % pattern.size:
        raise ExciseError(
            f"--pattern {pattern.kept}:{pattern.size}: {name} has {width} inputs, which {pattern.size} does not "
            "divide. Leave this map out (--scope), or choose another pattern."
        )


def pruned(score: Tensor, pattern: Pattern, protect: Tensor | None = None) -> Tensor:
    """Which weights of one matrix a pattern prunes.

    Args:
        score: ``[outputs, inputs]``; the lowest are pruned first. Infinity is allowed, NaN is not.
        pattern: a share per row or per matrix (a layer is one matrix here), or N:M.
        protect: bool, like ``score``: never pruned. The count stays exact: what a row cannot prune, the other rows
            prune besides, in proportion to what they have left (largest remainders, lower row first).

    Returns:
        bool, like ``score``: True where the weight is pruned.

    Raises:
        ExciseError: a score is NaN, or so much is protected that the pattern cannot be kept.
    """
    if score.isnan().any():
        raise ExciseError("a score is NaN: a weight or a calibration input is not finite")
    rows, columns = score.shape
    if isinstance(pattern, KeepNofM):
        groups = score.reshape(-1, pattern.size)
        count = pattern.size - pattern.kept
    else:
        groups = score if pattern.group == "row" else score.reshape(1, -1)
        count = int(pattern.share * groups.shape[1])
    if protect is None:
        return lowest(groups, count).reshape(rows, columns)
    free = (~protect).reshape(groups.shape)
    room = free.sum(1)
    if isinstance(pattern, KeepNofM):
        if (room < count).any():
            raise ExciseError(
                f"{pattern}: more than {pattern.kept} weights of a group of {pattern.size} are protected; protect "
                "fewer, or prune a share of each row"
            )
        counts = torch.full_like(room, count)
    else:
        counts = quotas(torch.full_like(room, count)[None], room[None])[0]
    return lowest(groups.masked_fill(~free, torch.inf), counts).reshape(rows, columns)


def pruned_together(
    scores: Sequence[Tensor], pattern: Pattern, protect: Sequence[Tensor | None] | None = None
) -> list[Tensor]:
    """``pruned`` for all maps of a layer; only the group ``layer`` compares them with each other."""
    protect = protect or [None] * len(scores)
    if not (isinstance(pattern, Share) and pattern.group == "layer"):
        return [pruned(score, pattern, kept) for score, kept in zip(scores, protect, strict=True)]
    flat = torch.cat([score.flatten() for score in scores])[None]
    kept = None
    if any(one is not None for one in protect):
        masks = [
            torch.zeros_like(score, dtype=torch.bool) if one is None else one
            for score, one in zip(scores, protect, strict=True)
        ]
        kept = torch.cat([mask.flatten() for mask in masks])[None]
    parts = torch.split(pruned(flat, pattern, kept)[0], [score.numel() for score in scores])
    return [part.reshape(score.shape) for part, score in zip(parts, scores, strict=True)]


def quotas(wanted: Tensor, room: Tensor) -> Tensor:
    """How many weights each group prunes when some have no room for what is wanted of them.

    The shortfall is divided over the groups of the same set in proportion to the room they have left, by largest
    remainder (of equal ones, the first).

    Args:
        wanted: ``[sets, groups]``, integers.
        room: ``[sets, groups]``, integers: weights that may be pruned.

    Returns:
        ``[sets, groups]``; each set has the sum of its ``wanted``, and no group is above its ``room``.

    Raises:
        ExciseError: a set has not room enough in all.
    """
    asked, free = wanted.sum(1), room.sum(1)
    if (full := asked > free).any():
        raise ExciseError(
            f"{int(asked[full][0])} weights are to be pruned, but all except {int(free[full][0])} are protected; "
            "protect fewer, or prune a smaller share"
        )
    counts = torch.minimum(wanted, room)
    short, left = (wanted - counts).sum(1, keepdim=True), room - counts
    total = left.sum(1, keepdim=True).clamp(min=1)
    whole, rest = left * short // total, left * short % total
    rank = rest.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
    return counts + whole + (rank < short - whole.sum(1, keepdim=True))


def lowest(groups: Tensor, counts: Tensor | int) -> Tensor:
    """Mark the ``counts`` lowest of each row of ``groups`` ``[groups, size]``; of equal ones the first."""
    if isinstance(counts, int):
        if counts == 0:
            return torch.zeros_like(groups, dtype=torch.bool)
        threshold = groups.kthvalue(counts, dim=1, keepdim=True).values
    else:
        place = (counts - 1).clamp(min=0)[:, None]
        threshold = groups.sort(dim=1).values.gather(1, place)
        threshold[counts == 0] = -torch.inf
        counts = counts[:, None]
    below = groups < threshold
    equal = groups == threshold
    missing = counts - below.sum(1, keepdim=True)
    return below | (equal & (equal.cumsum(1) <= missing))
