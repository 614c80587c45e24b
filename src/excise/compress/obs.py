"""The optimal brain surgeon along the columns of a matrix (Frantar and Alistarh 2023, algorithm 1).

When the weights of column j are pruned, the later columns take over as much of their output as they can:
``w_:,k -= w_:,j U_jk / U_jj`` with U the upper Cholesky factor of the inverse of the damped Gram matrix.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from excise.compress.inputs import inverse_factor

DAMPING = 0.01
"""SparseGPT's share of the mean diagonal."""

BLOCK = 128
"""Columns whose updates of the columns behind them are gathered into one product."""


def sweep(weight: Tensor, gram: Tensor, choose: Callable[[Tensor, Tensor, int], Tensor], span: int) -> Tensor:
    """Prune column by column, and let the later columns repair.

    Args:
        weight: ``[outputs, inputs]``.
        gram: ``[inputs, inputs]``, float64.
        choose: from ``span`` columns as they are by then, the diagonal of U for them and the first one's number, to the
            weights to prune, True, like these columns.
        span: how many columns are chosen from at once.

    Returns:
        The new weights; columns of inputs that were always zero are zero.

    Raises:
        ExciseError: the Gram matrix is not positive definite.
    """
    upper = inverse_factor(gram, DAMPING).to(weight.dtype)
    turned = torch.where(gram.diagonal() == 0, 0, weight).T.contiguous()  # a column's weights lie side by side
    columns = len(turned)
    block = span * max(1, BLOCK // span)
    for first in range(0, columns, block):
        last = min(first + block, columns)
        part, factor = turned[first:last], upper[first:last, first:last]
        errors = torch.zeros_like(part)
        mask = torch.empty_like(part, dtype=torch.bool)
        for at in range(last - first):
            if at % span == 0:
                chosen = choose(part[at : at + span].T, factor.diagonal()[at : at + span], first + at)
                mask[at : at + span] = chosen.T
            errors[at] = torch.where(mask[at], part[at] / factor[at, at], 0)
            part[at:] -= torch.outer(factor[at, at:], errors[at])
            part[at].masked_fill_(mask[at], 0)  # w - (w / u) u is not always zero
        turned[last:] -= upper[first:last, last:].T @ errors
    return turned.T.contiguous()


def repair(weight: Tensor, pruned: Tensor, gram: Tensor) -> Tensor:
    """The weights of a given mask (True = pruned) after this update of the columns behind each pruned weight."""
    return sweep(weight, gram, lambda part, _, first: pruned[:, first : first + part.shape[1]], BLOCK)
