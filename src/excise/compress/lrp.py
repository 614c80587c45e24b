"""LRP: the size of a weight's relevance as ``excise weight-relevance`` measured it (SparC3, Hatefi et al. 2025)."""

from torch import Tensor


def score(weight: Tensor, relevance: Tensor) -> Tensor:
    """``|R_ij|``, like the weight ``[outputs, inputs]``; a weight that is zero has none.

    Args:
        weight: ``[outputs, inputs]``.
        relevance: ``[outputs, inputs]``.
    """
    return relevance.to(weight.dtype).abs().masked_fill(weight == 0, 0)
