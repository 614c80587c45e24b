"""RIA: relative importance and activations (Zhang et al. 2024, eq. 3).

A weight's share of what its input sends and of what its output receives, times the root of its input's norm. A row or
column of zeros has shares of zero (0/0 = 0), so that it is pruned first; the paper's code makes NaN of it.
"""

import torch
from torch import Tensor

EXPONENT = 0.5
"""The paper's ``a``."""


def score(weight: Tensor, norms: Tensor) -> Tensor:
    """``(|w_ij| / sum_i |w_ij| + |w_ij| / sum_j |w_ij|) ||x_j||^a``, like the weight ``[outputs, inputs]``.

    Args:
        weight: ``[outputs, inputs]``.
        norms: ``[inputs]``, norm of each input over the calibration tokens.
    """
    column, row = relative(weight)
    return (column + row) * norms**EXPONENT


def relative(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Each weight's share of its column's sum of absolute values, and of its row's; 0 where the sum is."""
    size = weight.abs()
    column, row = size.sum(0, keepdim=True), size.sum(1, keepdim=True)
    return torch.where(column > 0, size / column, 0), torch.where(row > 0, size / row, 0)
