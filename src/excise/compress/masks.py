"""Which weights a pattern prunes: exact counts; of equal scores the lower (row, column) goes first."""

from collections.abc import Sequence

import torch
from torch import Tensor

from excise.compress.patterns import KeepNofM, Pattern, Share
from excise.errors import ExciseError


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
    if not isinstance(counts, int) and (counts == counts[0]).all():
        counts = int(counts[0])  # then nothing need be sorted
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
    if (equal.sum(1, keepdim=True) == missing).all():  # no tie to break
        return below | equal
    return below | (equal & (equal.cumsum(1) <= missing))
