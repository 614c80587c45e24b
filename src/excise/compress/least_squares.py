"""The best weights on a given mask: least squares on the support, by conjugate gradients (ALPS, algorithm 2).

In scaled coordinates, where the Gram matrix has a unit diagonal (that is Jacobi's preconditioner). Each output is a
problem of its own: minimise ``(b - b0)' G (b - b0)`` over the weights that are kept.
"""

import torch
from torch import Tensor

from excise.compress.inputs import damped
from excise.errors import ExciseError

DAMPING = 0.01
"""ALPS's share of the mean diagonal; it also pulls weights that the calibration hardly sees to their old values."""

STEPS = 100
"""At most; each output stops by itself at ``TOLERANCE``."""

TOLERANCE = 1e-4
"""Residual norm relative to the first one."""


def scaled(gram: Tensor, damping: float = DAMPING) -> tuple[Tensor, Tensor]:
    """The damped Gram matrix with a unit diagonal, and the root of its diagonal; float64."""
    full = damped(gram, damping)
    root = full.diagonal().sqrt()
    return full / root / root[:, None], root


def inverse_shifted(unit: Tensor, penalty: float) -> Tensor:
    """``(G + penalty I)^-1`` by Cholesky: half the work of ALPS's product of eigenvectors, and none to find them.

    Raises:
        ExciseError: the matrix is not positive definite.
    """
    shifted = unit + penalty * torch.eye(len(unit), dtype=unit.dtype, device=unit.device)
    lower, failed = torch.linalg.cholesky_ex(shifted)
    if failed:
        raise ExciseError(
            f"the Gram matrix of {len(unit)} inputs is not positive definite: calibrate with more tokens, or in float64"
        )
    return torch.cholesky_inverse(lower)


def fit(weight: Tensor, pruned: Tensor, gram: Tensor) -> Tensor:
    """The weights on the mask (True = pruned) that change the map's outputs least.

    Args:
        weight: ``[outputs, inputs]``, the unpruned weights.
        pruned: bool, like the weight.
        gram: ``[inputs, inputs]``, float64.
    """
    unit, root = scaled(gram)
    unit, root = unit.to(weight.dtype), root.to(weight.dtype)
    dense = (weight * root).T
    kept = ~pruned.T
    return (descend(unit, unit @ dense, dense * kept, kept, steps=STEPS) / root[:, None]).T


def descend(unit: Tensor, goal: Tensor, start: Tensor, kept: Tensor, *, steps: int) -> Tensor:
    """Conjugate gradients for ``G B = goal`` on the support, all outputs at once.

    Args:
        unit: ``G [inputs, inputs]``, positive definite.
        goal: ``[inputs, outputs]``.
        start: ``[inputs, outputs]``, zero outside the support.
        kept: bool ``[inputs, outputs]``, the support.
        steps: at most.
    """
    found = start
    residual = (goal - unit @ found) * kept
    direction, size = residual, residual.square().sum(0)
    enough = size * TOLERANCE**2
    for _ in range(steps):
        if (size <= enough).all():
            break
        image = unit @ direction
        curvature = (direction * image).sum(0)
        length = torch.where(size > enough, size / curvature, 0)
        found = found + length * direction
        residual = residual - length * image * kept
        smaller = residual.square().sum(0)
        direction = residual + torch.where(size > 0, smaller / size, 0) * direction
        size = smaller
    return found
