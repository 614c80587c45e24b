"""SparseGPT: mask and weight update in one sweep along the columns (Frantar and Alistarh 2023).

The paper's code prunes one weight more than asked for and all ties in each block of columns; here counts are exact.
"""

import torch
from torch import Tensor

from excise.compress.masks import lowest, pruned, quotas
from excise.compress.obs import BLOCK, sweep
from excise.compress.patterns import KeepNofM, Pattern, Share


def solve(weight: Tensor, gram: Tensor, pattern: Pattern, protect: Tensor | None = None) -> Tensor:
    """New weights ``[outputs, inputs]`` that keep the pattern.

    A share is divided over blocks of 128 columns, so that each block prunes its part of the whole; N:M is chosen group
    by group. A weight's error is ``w^2 / U_jj^2`` (section 3.2).

    Args:
        weight: ``[outputs, inputs]``, float32 or better.
        gram: ``[inputs, inputs]``, float64.
        pattern: a share of each row or matrix, or N:M.
        protect: bool, like the weight: never pruned.

    Raises:
        ExciseError: the Gram matrix is not positive definite, or too much is protected.
    """
    if isinstance(pattern, KeepNofM):

        def of_each_group(part: Tensor, diagonal: Tensor, first: int) -> Tensor:
            kept = None if protect is None else protect[:, first : first + pattern.size]
            return pruned((part / diagonal).square(), pattern, kept)

        return sweep(weight, gram, of_each_group, pattern.size)
    counts = _counts(weight, pattern, protect)

    def of_each_block(part: Tensor, diagonal: Tensor, first: int) -> Tensor:
        error = (part / diagonal).square()
        if protect is not None:
            error = error.masked_fill(protect[:, first : first + part.shape[1]], torch.inf)
        groups = error if pattern.group == "row" else error.reshape(1, -1)
        return lowest(groups, counts[:, first // BLOCK]).reshape(part.shape)

    return sweep(weight, gram, of_each_block, BLOCK)


def _counts(weight: Tensor, pattern: Share, protect: Tensor | None) -> Tensor:
    """How many weights each group prunes in each block of columns, ``[groups, blocks]``: exact in each group."""
    rows, columns = weight.shape
    free = torch.ones_like(weight, dtype=torch.bool) if protect is None else ~protect
    room = torch.stack([block.sum(1) for block in torch.split(free, BLOCK, dim=1)], dim=1)
    size = columns
    if pattern.group != "row":
        room, size = room.sum(0, keepdim=True), rows * columns
    wanted = torch.full_like(room[:, 0], int(pattern.share * size))
    totals = quotas(wanted[None], room.sum(1)[None])[0]
    ends = torch.arange(BLOCK, columns + BLOCK, BLOCK, device=weight.device).clamp(max=columns)
    cumulated = totals[:, None] * ends // columns
    return quotas(cumulated.diff(dim=1, prepend=torch.zeros_like(cumulated[:, :1])), room)
