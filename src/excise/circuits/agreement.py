"""How well cheap scores of nodes agree with exact patching."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from excise.artefacts import Json
from excise.errors import ExciseError

Values = NDArray[np.float64]


def agreement(exact: Values, cheap: Values, *, best: int = 20) -> Json:
    """Agreement of two scores of the same nodes.

    Returns:
        ``r``: Pearson correlation; ``r_without_strongest``: the same without the node of the strongest exact effect,
        which alone may make a correlation; ``rho``: Spearman rank correlation; ``best``: share of the ``best``
        strongest nodes (by absolute effect) that both name.
    """
    rest = np.arange(exact.size) != np.abs(exact).argmax()
    best = min(best, exact.size)
    strongest = [set(np.argsort(-np.abs(values), kind="stable")[:best].tolist()) for values in (exact, cheap)]
    return {
        "r": _pearson(exact, cheap),
        "r_without_strongest": _pearson(exact[rest], cheap[rest]),
        "rho": float(spearmanr(exact, cheap).statistic) if _varies(exact, cheap) else None,
        "best": len(strongest[0] & strongest[1]) / best,
    }


def _pearson(first: Values, second: Values) -> float | None:
    """None where fewer than three nodes, or equal values, have no correlation."""
    return float(np.corrcoef(first, second)[0, 1]) if _varies(first, second) else None


def _varies(first: Values, second: Values) -> bool:
    return first.size > 2 and bool(np.ptp(first) > 0) and bool(np.ptp(second) > 0)


def auroc(scores: Values, known: NDArray[np.bool_]) -> float:
    """Chance that a node of a known circuit has a larger absolute score than another; equal ones count half."""
    sizes = np.abs(scores)
    here, others = sizes[known][:, None], sizes[~known][None]
    return float((here > others).mean() + 0.5 * (here == others).mean())


def strongest_and_others(effects: Sequence[float], count: int, *, seed: int | None) -> list[int]:
    """Places of the ``count`` strongest nodes by absolute effect; with a seed as many of the others, drawn at random.

    Raises:
        ExciseError: there are fewer others than that.
    """
    order = np.argsort(-np.abs(np.asarray(effects)), kind="stable")
    if seed is None:
        return [int(place) for place in order[:count]]
    if len(order) < 2 * count:
        raise ExciseError(f"{len(order) - count} other nodes, fewer than {count}: take a smaller share")
    drawn = np.random.default_rng(seed).choice(order[count:], count, replace=False)
    return sorted(int(place) for place in drawn)
