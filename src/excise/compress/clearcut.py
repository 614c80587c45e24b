"""ClearCut: RIA per row with a small term of interaction (public code, no paper).

The term is a tenth of the product of RIA's two shares, and those are about 1 / width: it moves one mask entry in a
hundred thousand. It is here so that its users find it, not because it differs from ``ria``.
"""

from torch import Tensor

from excise.compress.ria import EXPONENT, relative

INTERACTION = 0.1


def score(weight: Tensor, norms: Tensor) -> Tensor:
    """``(c + r + 0.1 c r) ||x_j||^a`` with RIA's shares c of the column and r of the row.

    Args:
        weight: ``[outputs, inputs]``.
        norms: ``[inputs]``, norm of each input over the calibration tokens.
    """
    column, row = relative(weight)
    return (column + row + INTERACTION * column * row) * norms**EXPONENT
