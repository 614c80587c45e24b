"""Wanda: a weight times the norm of its input (Sun et al. 2023, eq. 1)."""

from torch import Tensor


def score(weight: Tensor, norms: Tensor) -> Tensor:
    """``|w_ij| ||x_j||``, like the weight ``[outputs, inputs]``.

    Args:
        weight: ``[outputs, inputs]``.
        norms: ``[inputs]``, norm of each input over the calibration tokens.
    """
    return weight.abs() * norms
