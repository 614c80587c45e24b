"""Choose units: the contrast, the protection, the global top-N, and how stable the choice is.

All scores are signed scores ``[layers, units]`` in float64. The contrast is retain minus target (SparC3, eq. 7); the
most negative units serve the target more than everything else and are selected first. Ties are broken by
(layer, unit), so that equal scores give equal selections.
"""

from itertools import combinations

import numpy as np

from excise.artefacts import Array
from excise.errors import ExciseError, unknown

CONTRASTS = ("plain", "scaled", "standardised", "set")


def contrast(retain: Array, target: Array, *, kind: str = "plain", standard_error: "Array | None" = None) -> Array:
    """Retain minus target; ascending order = order of removal.

    Args:
        retain: mean score over the retain reference, ``[layers, units]``.
        target: mean score over the target reference, same shape.
        kind: ``plain`` (SparC3, eq. 7); ``scaled``: both divided by their sum of absolute values first, since that sum
            differs between reference sets of different form; ``standardised``: plain over its standard error; ``set``:
            the target's score alone. With a protected share p and the N first units, ``set`` is the set difference of
            Wei et al. 2024 (arXiv 2402.05162): the top q of the target score minus the top p of the retain score, with
            q such that N remain.
        standard_error: standard error of the plain difference, for ``standardised``.

    Raises:
        ExciseError: unknown kind, no standard error, or nothing but zeros.
    """
    if kind not in CONTRASTS:
        raise unknown("contrast", kind, CONTRASTS)
    if kind == "plain":
        return retain - target
    if kind == "set":
        return -target
    if kind == "scaled":
        totals = np.abs(retain).sum(), np.abs(target).sum()
        if not all(totals):
            raise ExciseError("scaled contrast: one of the two references has no relevance at all")
        difference: Array = retain / totals[0] - target / totals[1]
        return difference
    if standard_error is None:
        raise ExciseError(
            "standardised contrast: these scores carry no standard error (the method keeps no sums of squares); "
            "choose plain or scaled"
        )
    # A unit that never fired has difference 0 and standard error 0: its standardised difference is 0.
    zero = np.zeros_like(retain)
    np.divide(retain - target, standard_error, out=zero, where=standard_error > 0)
    return zero


def most_relevant(retain: Array, share: float) -> Array:
    """Which units may never be selected: the top ``share`` of absolute retain score, over all layers.

    Args:
        retain: ``[layers, units]``.
        share: between 0 (nobody) and 1; ``round(share * size)`` units are protected.

    Returns:
        Boolean ``[layers, units]``, true = protected.
    """
    order = np.argsort(-np.abs(retain).ravel(), kind="stable")
    protected = np.zeros(retain.size, dtype=bool)
    protected[order[: round(share * retain.size)]] = True
    return protected.reshape(retain.shape)


def dampening(expertise: Array) -> Array:
    """AurA's scale of each unit: 1 - Gini = 1 - 2 (AUROC - 0.5) for an expert, 1 for others (AUROC at most 0.5).

    Suau et al. 2024 (arXiv 2407.12824); a perfect expert (AUROC 1) gets 0.
    """
    return np.minimum(1 - 2 * (expertise - 0.5), 1)


def lowest(score: Array, count: int | None, *, protected: "Array | None" = None, negative_only: bool = False) -> Array:
    """Flat indices of the ``count`` lowest scores over all layers, lowest first.

    Args:
        score: ``[layers, units]``.
        count: how many; None takes all that can be taken.
        protected: true where a unit must not be taken.
        negative_only: refuse units whose score is not below zero: they do not serve the target.

    Raises:
        ExciseError: fewer units than ``count`` can be taken, or none.
    """
    allowed = np.ones(score.shape, dtype=bool) if protected is None else ~protected
    if negative_only:
        allowed = allowed & (score < 0)
    available = int(allowed.sum())
    if not available or (count or 0) > available:
        condition = " with a negative contrast" if negative_only else ""
        raise ExciseError(
            f"{count or 'all'} units were asked for, but only {available} of {score.size} may be selected"
            f"{condition} (after the protection). Ask for fewer, or lower the protection."
        )
    order = np.argsort(np.where(allowed, score, np.inf).ravel(), kind="stable")
    return order[: available if count is None else count]


def lowest_by_layer(score: Array, profile: list[int]) -> Array:
    """Flat indices of the ``profile[l]`` lowest scores of each layer ``l``, layer by layer."""
    width = score.shape[1]
    orders = [np.argsort(row, kind="stable") for row in score]
    return np.concatenate([layer * width + orders[layer][:count] for layer, count in enumerate(profile)])


def jaccard(a: set[int], b: set[int]) -> float:
    """Intersection over union; 1 for two empty sets."""
    return len(a & b) / len(a | b) if a | b else 1.0


def pairwise_jaccard(selections: list[set[int]]) -> list[float]:
    """Jaccard overlap of every pair, in the order of ``itertools.combinations``."""
    return [jaccard(a, b) for a, b in combinations(selections, 2)]
