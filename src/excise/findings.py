"""The noise of finding: how far an effect depends on the references that a selection was found from.

The interval of one list contains the noise of judging only: other prompts, other answers. Found again, from other
answers of the model and other windows of text, the list would be another one, and its effect too. So find it k times,
each time from references of its own, and judge all k on the same items::

    mean     of the k effects: what to expect of one more finding
    S        the variance of the k effects
    V        the squared standard error of their mean over the items, all k moving together: the noise of judging
    margins  of judging t(v) sqrt(V), of finding t(k - 1) sqrt((1 + 1/k) S), where t is Student's 0.975 quantile
    interval mean +- sqrt(sum of the squared margins)

S / k is the error of the mean and S what one more finding differs from it by, so the interval is one for the effect of
the next finding, judged on all items like these. Each margin has its own degrees of freedom (v = items - 1), and their
squares add up as variances do (Zou and Donner 2008, MOVER): with k = 3, a single quantile for the sum with
Satterthwaite's degrees of freedom covers 92 % only. S contains what is left of the noise of judging where the k answer
differently, so the interval errs on the wide side. Simulated for 60 items and k = 3 and 5 it covers 95 to 99 % of the
next findings, whichever noise prevails.

Sign convention: effect = finding - baseline.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

from excise.comparison import CONFIDENCE, MINIMUM_ITEMS, Interval, Pair, standard_error
from excise.tasks.measurement import Metric, Values


@dataclass(frozen=True, kw_only=True)
class Spread:
    """The effect of several findings on one metric.

    Attributes:
        before: figure of the baseline.
        after: figure of each finding.
        difference: mean effect, in the unit of the metric.
        deviation: standard deviation of the effects.
        worst: the effect of the finding that does worst; None where neither direction is better.
        interval: 95 % interval of the effect of one more finding, with the noise of finding and of judging; None for
            fewer than two items.
        relative: geometric mean of after / before, less 1; None where a figure is not positive.
        relative_worst: that of the finding that does worst.
        relative_interval: 95 % interval of it for one more finding, made on the logarithm.
    """

    before: float
    after: tuple[float, ...]
    difference: float
    deviation: float
    worst: float | None
    interval: Interval | None
    relative: float | None = None
    relative_worst: float | None = None
    relative_interval: Interval | None = None


def spread(before: Metric, after: Sequence[Metric], *, serial: bool = False) -> Spread | None:
    """The effect of independent findings of one selection.

    Args:
        before: metric of the baseline.
        after: of each finding, two or more, with the items of the baseline in its order.
        serial: neighbouring items resemble each other.

    Returns:
        None where only figures are known.
    """
    if before.figure is None or any(one.values is None or one.figure is None for one in (before, *after)):
        return None
    pairs = [Pair(before, one) for one in after]
    effects = np.array([pair.figures[1] - pair.figures[0] for pair in pairs])
    worst = {"lower": effects.max(), "higher": effects.min(), None: None}[before.direction]
    enough = pairs[0].items >= MINIMUM_ITEMS
    found = Spread(
        before=pairs[0].figures[0],
        after=tuple(pair.figures[1] for pair in pairs),
        difference=float(effects.mean()),
        deviation=float(effects.std(ddof=1)),
        worst=None if worst is None else float(worst),
        interval=_interval(effects, [pair.difference_influence() for pair in pairs], serial) if enough else None,
    )
    influences = [influence for pair in pairs if (influence := pair.relative_influence()) is not None]
    if len(influences) < len(pairs):
        return found
    logs = np.log([pair.figures[1] / pair.figures[0] for pair in pairs])
    ends = _interval(logs, influences, serial) if enough else None
    return Spread(
        **vars(found)
        | {
            "relative": float(np.expm1(logs.mean())),
            "relative_worst": None if worst is None else float(worst) / found.before,
            "relative_interval": None if ends is None else (float(np.expm1(ends[0])), float(np.expm1(ends[1]))),
        }
    )


def _interval(effects: Values, influences: Sequence[Values], serial: bool) -> Interval:
    """The interval of the module's docstring.

    Args:
        effects: ``[findings]``.
        influences: what each item adds to each effect, ``[items]`` each.
        serial: neighbouring items resemble each other.
    """
    error, freedom = standard_error(np.mean(influences, axis=0), serial=serial)
    judging = stdtrit(freedom, 0.5 + CONFIDENCE / 2) * error
    finding = stdtrit(effects.size - 1, 0.5 + CONFIDENCE / 2) * ((1 + 1 / effects.size) * effects.var(ddof=1)) ** 0.5
    middle, half = float(effects.mean()), float(np.hypot(judging, finding))
    return middle - half, middle + half
