"""Choose neurons: the contrast, the protection, the global top-N, and how stable the choice is.

All scores are signed neuron scores ``[layers, neurons]`` in float64. The contrast is general minus behaviour
(SparC3, eq. 7); the most negative neurons serve the behaviour more than everything else and are selected first.
Ties are broken by (layer, neuron), so that equal scores give equal selections.
"""

from itertools import combinations

import torch
from torch import Tensor

from excise.errors import ExciseError, unknown

CONTRASTS = ("plain", "scaled", "standardised", "set")


def contrast(
    general: Tensor, behaviour: Tensor, *, kind: str = "plain", standard_error: Tensor | None = None
) -> Tensor:
    """General minus behaviour, ascending order = order of removal.

    Args:
        general: mean score over the general reference, ``[layers, neurons]``.
        behaviour: mean score over the reference that shows the behaviour, same shape.
        kind: ``plain`` (SparC3, eq. 7); ``scaled``: both divided by their sum of absolute values first, since that sum
            differs between corpora of different form; ``standardised``: plain over its standard error; ``set``: the
            behaviour's score alone. With a protected share p and the N first neurons, ``set`` is the set difference of
            Wei et al. 2024 (arXiv 2402.05162): the top q of the behaviour minus the top p of the general score, with q
            such that N remain.
        standard_error: standard error of the plain difference, for ``standardised``.

    Raises:
        ExciseError: unknown kind, no standard error, or nothing but zeros.
    """
    if kind not in CONTRASTS:
        raise unknown("contrast", kind, CONTRASTS)
    if kind == "plain":
        return general - behaviour
    if kind == "set":
        return -behaviour
    if kind == "scaled":
        totals = general.abs().sum(), behaviour.abs().sum()
        if not all(totals):
            raise ExciseError("scaled contrast: one of the two references has no relevance at all")
        return general / totals[0] - behaviour / totals[1]
    if standard_error is None:
        raise ExciseError(
            "standardised contrast: these scores carry no standard error (the method keeps no sums of squares); "
            "choose plain or scaled"
        )
    # A neuron that never fired has difference 0 and standard error 0: its standardised difference is 0.
    return torch.where(standard_error > 0, (general - behaviour) / standard_error, torch.zeros_like(general))


def most_relevant(general: Tensor, share: float) -> Tensor:
    """Which neurons may never be selected: the top ``share`` of absolute general score, over all layers.

    Args:
        general: ``[layers, neurons]``.
        share: between 0 (nobody) and 1; ``round(share * size)`` neurons are protected.

    Returns:
        Boolean ``[layers, neurons]``, true = protected.
    """
    count = round(share * general.numel())
    protected = torch.zeros(general.numel(), dtype=torch.bool)
    protected[general.abs().flatten().sort(descending=True, stable=True).indices[:count]] = True
    return protected.view_as(general)


def dampening(expertise: Tensor) -> Tensor:
    """AurA's factor of each neuron: 1 - Gini = 1 - 2 (AUROC - 0.5) for an expert, 1 for others (AUROC at most 0.5).

    Suau et al. 2024 (arXiv 2407.12824); a perfect expert (AUROC 1) gets 0.
    """
    return (1 - 2 * (expertise - 0.5)).clamp(max=1)


def lowest(score: Tensor, count: int | None, *, protected: Tensor | None = None, negative_only: bool = False) -> Tensor:
    """Flat indices of the ``count`` lowest scores over all layers, lowest first.

    Args:
        score: ``[layers, neurons]``.
        count: how many; None takes all that can be taken.
        protected: true where a neuron must not be taken.
        negative_only: refuse neurons whose score is not below zero: they do not serve the behaviour.

    Raises:
        ExciseError: fewer neurons than ``count`` can be taken, or none.
    """
    allowed = torch.ones_like(score, dtype=torch.bool) if protected is None else ~protected
    if negative_only:
        allowed = allowed & (score < 0)
    available = int(allowed.sum())
    if not available or (count or 0) > available:
        condition = " with a negative contrast" if negative_only else ""
        raise ExciseError(
            f"{count or 'all'} neurons were asked for, but only {available} of {score.numel()} may be selected"
            f"{condition} (after the protection). Ask for fewer, or lower the protection."
        )
    order = score.masked_fill(~allowed, torch.inf).flatten().sort(stable=True).indices
    return order[: available if count is None else count]


def lowest_by_layer(score: Tensor, profile: list[int]) -> Tensor:
    """Flat indices of the ``profile[l]`` lowest scores of each layer ``l``, layer by layer."""
    width = score.shape[1]
    return torch.cat([layer * width + score[layer].sort(stable=True).indices[:n] for layer, n in enumerate(profile)])


def jaccard(a: set[int], b: set[int]) -> float:
    """Intersection over union; 1 for two empty sets."""
    return len(a & b) / len(a | b) if a | b else 1.0


def pairwise_jaccard(selections: list[set[int]]) -> list[float]:
    """Jaccard overlap of every pair, in the order of ``itertools.combinations``."""
    return [jaccard(a, b) for a, b in combinations(selections, 2)]
