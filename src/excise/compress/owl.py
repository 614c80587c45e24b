"""Shares that differ by layer: layers with more outliers keep more of their weights (OWL, Yin et al. 2024).

A weight is an outlier where its Wanda score is more than ``MULTIPLE`` times the mean score of its layer. What layers
keep is spread linearly in their shares of outliers, over ``2 x SPREAD`` in all; the mean share stays.
"""

from collections.abc import Sequence
from fractions import Fraction

from torch import Tensor

from excise.errors import ExciseError

MULTIPLE, SPREAD = 5, 0.08
"""As in OWL's own code."""


def outliers(scores: Sequence[Tensor]) -> float:
    """Share of the weights of a layer, all its maps together, that are outliers.

    Args:
        scores: of each map, ``[outputs, inputs]``.
    """
    count = sum(score.numel() for score in scores)
    mean = sum(float(score.double().sum()) for score in scores) / count
    return sum(int((score > MULTIPLE * mean).sum()) for score in scores) / count


def shares(ratios: Sequence[float], share: Fraction) -> list[Fraction]:
    """What is pruned of each layer.

    Args:
        ratios: share of outliers of each layer.
        share: mean of the result.

    Raises:
        ExciseError: some layer would lose nothing, or all.
    """
    low, high = min(ratios), max(ratios)
    kept = [Fraction(2 * SPREAD * (ratio - low) / (high - low)) if high > low else Fraction(0) for ratio in ratios]
    found = [share + sum(kept, Fraction(0)) / len(kept) - one for one in kept]
    if not (min(found) > 0 and max(found) < 1):
        raise ExciseError(
            f"--shares owl: layers would lose {float(min(found)):.3f} to {float(max(found)):.3f} of their weights; "
            "choose a share further from 0 and 1"
        )
    return found
