"""Order the neurons of an MLP so that N:M keeps more of the output projection's score (Zhang et al. 2024, RIA).

N:M keeps N of M neighbours, so it matters who the neighbours are. An order of neurons is exact and free: rows of the
input projections and columns of the output projection move together, the model computes the same sum in another order,
and the stored matrix is N:M as it is. (The paper orders the inputs of every map and needs a gather at run time.)
"""

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from excise.compress.patterns import KeepNofM


def retained(score: Tensor, pattern: KeepNofM) -> float:
    """Sum of the scores that N:M keeps, ``score [outputs, inputs]``."""
    groups = score.reshape(-1, pattern.size)
    return float(groups.topk(pattern.kept, dim=1).values.sum(dtype=torch.float64))


def order(score: Tensor, pattern: KeepNofM) -> Tensor:
    """An order of the columns that keeps at least what the given one does.

    Two starts: the columns as they are, and dealt out by falling total score like cards, so that the strong ones do not
    meet (the paper's heuristic, which alone can lose). From each, slot by slot, the columns in that slot are assigned
    anew to the groups: the best assignment given the others. The better end is taken.

    Args:
        score: ``[outputs, inputs]``, finite.
        pattern: N:M; M divides the inputs.

    Returns:
        ``[inputs]``: column ``order[j]`` comes to place ``j``.
    """
    there = torch.arange(score.shape[1])
    dealt = score.sum(0, dtype=torch.float64).cpu().argsort(descending=True, stable=True)
    starts = (there, dealt.reshape(pattern.size, -1).T.flatten())
    ends = [_improved(score, start, pattern) for start in starts]
    return max(ends, key=lambda end: retained(score[:, end], pattern))


def _improved(score: Tensor, start: Tensor, pattern: KeepNofM) -> Tensor:
    groups = start.reshape(-1, pattern.size).clone()  # [groups, slots]
    for slot in range(pattern.size):
        values = assignment_values(score, groups, slot, pattern)
        _, columns = linear_sum_assignment(values.cpu().numpy(), maximize=True)
        groups[:, slot] = groups[torch.from_numpy(columns), slot]
    return groups.flatten()


def assignment_values(score: Tensor, groups: Tensor, slot: int, pattern: KeepNofM) -> Tensor:
    """What each group would keep with each column of a slot, without sorting for each pair.

    Beside the other ``M - 1`` columns of group g, column x brings a row ``max(b, x)`` where b is the N-th largest of
    the others; the ``N - 1`` largest of them are kept anyway.

    Args:
        score: ``[outputs, inputs]``.
        groups: columns in each group, ``[groups, slots]``.
        slot: which slot is assigned anew.
        pattern: N:M.

    Returns:
        ``[groups, groups]``: row g, column h: group g with the column that group h has in this slot.
    """
    others = torch.cat([groups[:, :slot], groups[:, slot + 1 :]], dim=1)
    largest = score[:, others].topk(pattern.kept, dim=2).values  # [outputs, groups, N]
    anyway, least = largest[..., :-1].sum((0, 2)), largest[..., -1]
    coming = score[:, groups[:, slot]]  # [outputs, groups]
    rows = [torch.maximum(least[:, group, None], coming).sum(0) for group in range(len(groups))]
    return anyway[:, None] + torch.stack(rows)
