"""Magnitude: |w| (Han et al. 2015). Needs no calibration."""

from torch import Tensor


def score(weight: Tensor) -> Tensor:
    """``|w|``, like the weight ``[outputs, inputs]``."""
    return weight.abs()
