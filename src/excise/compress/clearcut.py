"""ClearCut: RIA per row with a small term of interaction (public code, no paper).

The term is at most a twentieth of the smaller of RIA's two shares, and those are about 1 / width: it moves one mask
entry in a hundred thousand. It is here so that its users find it, not because it differs from ``ria``.
"""

import torch
from torch import Tensor

from excise.compress.ria import EXPONENT, relative

INTERACTION = 0.1


def score(weight: Tensor, norms: Tensor) -> Tensor:
    """``(c + r + 0.1 c r / (c + r)) ||x_j||^a`` with RIA's shares c of the column and r of the row.

    Args:
        weight: ``[outputs, inputs]``.
        norms: ``[inputs]``, root of the mean square of each input over the calibration tokens.
    """
    column, row = relative(weight)
    both = column + row
    return (both + INTERACTION * torch.where(both > 0, column * row / both, 0)) * norms**EXPONENT
