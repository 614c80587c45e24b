"""What calibration measures of a linear map's inputs: sums over tokens, which can be added up."""

import logging

import torch
from torch import Tensor

from excise.errors import ExciseError

logger = logging.getLogger(__name__)

STRIPS = 4
"""Parts of the width that a Gram matrix is computed in: four do 10 of 16 products."""

RAISES = 3
"""How often damping is raised tenfold before a Gram matrix is given up."""


class Inputs:
    """Sums over calibration tokens for the inputs ``x`` of one map, or of several that read the same inputs.

    One window is multiplied at a time, in the precision of the model, and added in float64: so the sums do not depend
    on how windows are grouped, and those of several shards add up.

    Attributes:
        tokens: how many were added.
        squares: ``[width]``, sum of ``x_j^2``.
        gram: ``[width, width]``, sum of ``x_i x_j``; None where it was not asked for.
    """

    def __init__(self, width: int, *, gram: bool, device: torch.device) -> None:
        self.tokens = 0
        self.squares = torch.zeros(width, dtype=torch.float64, device=device)
        self.gram = torch.zeros(width, width, dtype=torch.float64, device=device) if gram else None

    def add(self, window: Tensor) -> None:
        """Add the inputs of one window, ``[..., width]``; bfloat16 is multiplied in float32."""
        rows = window.reshape(-1, window.shape[-1])
        rows = rows if rows.dtype == torch.float64 else rows.float()
        self.tokens += len(rows)
        if self.gram is None:
            self.squares += rows.double().square().sum(0)
        else:
            self.gram += products(rows)
            self.squares = self.gram.diagonal()

    @property
    def norms(self) -> Tensor:
        """The norm of each input over all calibration tokens, ``[width]``, float32: the peers', to the last bit."""
        return self.squares.float().sqrt()

    def ordered(self, places: Tensor) -> "Inputs":
        """The same sums with the inputs in another order."""
        other = Inputs(0, gram=False, device=self.squares.device)
        other.tokens, other.squares = self.tokens, self.squares[places]
        other.gram = None if self.gram is None else self.gram[places][:, places]
        return other


def products(rows: Tensor) -> Tensor:
    """``rows' rows``, ``[width, width]``: its strips down from the diagonal, and their mirror image."""
    width = rows.shape[1]
    found = rows.new_empty(width, width)
    strip = -(-width // STRIPS)
    for first in range(0, width, strip):
        last = min(first + strip, width)
        found[first:, first:last] = rows[:, first:].T @ rows[:, first:last]
        found[first:last, last:] = found[last:, first:last].T
    return found


def damped(gram: Tensor, damping: float) -> Tensor:
    """The Gram matrix with ``damping x mean(diagonal)`` added to its diagonal.

    An input that is always zero gets 1 there first, as in SparseGPT.

    Args:
        gram: ``[width, width]``, float64.
        damping: share of the mean of the diagonal.
    """
    diagonal = gram.diagonal()
    dead = diagonal == 0
    return gram + torch.diag(dead.double() + damping * torch.where(dead, 1, diagonal).mean())


def inverse_factor(gram: Tensor, damping: float) -> Tensor:
    """The upper Cholesky factor of the inverse of the damped Gram matrix, ``[width, width]``, float64.

    Where the matrix is not positive definite, damping is raised tenfold, and that is logged.

    Raises:
        ExciseError: it is not even then; a method never goes on with another matrix.
    """
    for attempt in range(RAISES + 1):
        raised = damping * 10**attempt
        lower, failed = torch.linalg.cholesky_ex(damped(gram, raised))
        if not failed:
            upper, failed = torch.linalg.cholesky_ex(torch.cholesky_inverse(lower), upper=True)
        if not failed and upper.isfinite().all():
            if attempt:
                logger.warning("a Gram matrix of width %d needed a damping of %g", len(gram), raised)
            factor: Tensor = upper
            return factor
    raise ExciseError(
        f"the Gram matrix of {len(gram)} inputs is not positive definite, even with a damping of {raised:g} of its "
        "mean diagonal: calibrate with more tokens, or choose a method without weight updates (wanda, ria)"
    )
