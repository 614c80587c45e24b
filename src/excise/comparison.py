"""Paired comparison of a variant with the baseline, prompt by prompt.

Both answered the same prompts, so the unit of every statement is the prompt: intervals come from resampling prompts
with replacement (both values of a prompt move together), p values from exchanging the two values within prompts.
Draws of one prompt are not independent and are averaged before they get here.

Sign convention: difference = variant - baseline; a reduction is negative.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import DegenerateDataWarning, bootstrap, norm, permutation_test, t

from excise.errors import ExciseError

Values = NDArray[np.float64]
Interval = tuple[float, float]

CONFIDENCE = 0.95
"""Confidence level of every interval."""

POWER = 0.8
"""Probability with which a true difference of the size ``detectable`` would have been found."""

MINIMUM_PROMPTS = 2
"""Fewer prompts than this leave nothing to resample."""

_BATCH_VALUES = 4_000_000
"""Resampled values held at once: bounds memory, does not change the numbers."""


@dataclass(frozen=True)
class Change:
    """What changed between the baseline and a variant in one metric.

    Attributes:
        prompts: number of prompts compared.
        before: mean over prompts, baseline.
        after: mean over prompts, variant.
        difference: after - before, in the unit of the metric.
        interval: percentile bootstrap interval of the difference.
        simultaneous_interval: the same at the Bonferroni level, so that the intervals of all variants compared hold
            together; it stays valid for the variant picked as the best of them.
        relative: after / before - 1; None when before is 0.
        relative_interval: percentile bootstrap interval of the ratio; None when some resample has before = 0.
        p: two-sided p value of the paired permutation test.
        detectable: absolute true difference that would be found with 80 % power at these prompts (normal
            approximation, from the standard deviation of the differences).
    """

    prompts: int
    before: float
    after: float
    difference: float
    interval: Interval
    simultaneous_interval: Interval
    relative: float | None
    relative_interval: Interval | None
    p: float
    detectable: float

    @property
    def reduces(self) -> bool:
        """The whole interval lies below zero."""
        return self.interval[1] < 0


def compare(before: Values, after: Values, *, seed: int, resamples: int = 10_000, comparisons: int = 1) -> Change:
    """Compare two variants on the same prompts.

    Bootstrap: Efron and Tibshirani 1993, percentile interval (section 13.3); it covers as nominal on shares of a few
    draws per prompt. Test: sign-flip permutation of the differences, exact when there are no more than ``resamples``
    sign patterns, else p = (1 + number at least as extreme) / (1 + resamples) on each side, doubled.

    The random stream depends on ``seed`` alone: every variant is judged on the same resamples, whichever others
    are in the table.

    Args:
        before: metric of the baseline, ``[prompts]``.
        after: metric of the variant in the same order of prompts, ``[prompts]``.
        seed: seed of the resampling.
        resamples: bootstrap resamples, and permutations.
        comparisons: number of variants compared with this baseline, for ``simultaneous_interval``.

    Raises:
        ExciseError: shapes differ, there are too few prompts, or a value is not finite.
    """
    if before.shape != after.shape or before.ndim != 1:
        raise ExciseError(f"paired comparison: shapes {before.shape} and {after.shape}; one value per prompt is needed")
    if before.size < MINIMUM_PROMPTS:
        raise ExciseError(f"paired comparison: {before.size} prompts; at least {MINIMUM_PROMPTS} are needed")
    if not (np.isfinite(before).all() and np.isfinite(after).all()):
        raise ExciseError("paired comparison: some prompt's value is not a finite number")
    differences = after - before
    batch = max(1, _BATCH_VALUES // before.size)

    def difference(b: Values, a: Values, axis: int = -1) -> Values:
        return np.asarray((a - b).mean(axis))

    def ratio(b: Values, a: Values, axis: int = -1) -> Values:
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(a.mean(axis) / b.mean(axis) - 1)

    def distribution(statistic: object) -> Values:
        # Only the distribution is used; the warnings are about scipy's own standard error and interval of it.
        with np.errstate(invalid="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore", DegenerateDataWarning)
            result = bootstrap(
                (before, after),
                statistic,
                paired=True,
                vectorized=True,
                n_resamples=resamples,
                batch=batch,
                method="percentile",
                rng=np.random.default_rng([seed, 0]),
            )
        return np.asarray(result.bootstrap_distribution)

    absolute = distribution(difference)
    relative = distribution(ratio) if before.mean() != 0 else None
    test = permutation_test(
        (differences,),
        lambda values, axis=-1: values.mean(axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=resamples,
        batch=batch,
        rng=np.random.default_rng([seed, 1]),
    )
    quantiles = float(norm.ppf(0.5 + CONFIDENCE / 2) + norm.ppf(POWER))
    return Change(
        prompts=before.size,
        before=float(before.mean()),
        after=float(after.mean()),
        difference=float(differences.mean()),
        interval=_percentiles(absolute, CONFIDENCE),
        simultaneous_interval=_percentiles(absolute, 1 - (1 - CONFIDENCE) / comparisons),
        relative=float(after.mean() / before.mean() - 1) if relative is not None else None,
        relative_interval=(
            _percentiles(relative, CONFIDENCE) if relative is not None and np.isfinite(relative).all() else None
        ),
        p=float(test.pvalue),
        detectable=quantiles * float(differences.std(ddof=1)) / before.size**0.5,
    )


def paired_interval(before: Values, after: Values) -> Interval | None:
    """Interval of the mean difference, from the standard error of the paired differences (Miller 2024).

    For one answer to each of thousands of questions: there it is what the bootstrap gives, at no cost. Miller:
    Adding Error Bars to Evals, arXiv:2411.00640.

    Args:
        before: metric of the baseline, ``[questions]``.
        after: metric of the variant in the same order of questions, ``[questions]``.

    Returns:
        None for fewer than two questions.
    """
    if before.shape != after.shape:
        raise ExciseError(f"paired comparison: shapes {before.shape} and {after.shape}; the questions must be the same")
    if before.size < MINIMUM_PROMPTS:
        return None
    differences = after - before
    half = float(norm.ppf(0.5 + CONFIDENCE / 2)) * float(differences.std(ddof=1)) / before.size**0.5
    return float(differences.mean()) - half, float(differences.mean()) + half


def perplexity_interval(before: Values, after: Values, tokens: Values) -> Interval | None:
    """Interval of the relative change of perplexity, from the paired losses of the windows.

    The logarithm of the ratio of two perplexities is a ratio of sums over windows: differences of the loss over tokens.
    Its standard error is the linearised one (Cochran 1977, chapter 6), Student's t makes the interval; where all
    windows have as many tokens, that is the paired t interval. The windows stand for text like this one. Neighbours
    that resemble each other count as independent, which makes the interval a little too narrow.

    Args:
        before: loss of the baseline, summed over the tokens of each window, ``[windows]``.
        after: loss of the variant, ``[windows]``.
        tokens: predicted tokens of each window, ``[windows]``.

    Returns:
        As shares of the baseline's perplexity, 0.05 = +5 %; None for fewer than two windows.
    """
    if not before.shape == after.shape == tokens.shape:
        raise ExciseError(f"perplexity: {before.size} and {after.size} windows; they must be the same")
    if before.size < MINIMUM_PROMPTS:
        return None
    differences = after - before
    change = differences.sum() / tokens.sum()
    residuals = differences - change * tokens
    error = np.sqrt(before.size / (before.size - 1) * (residuals**2).sum()) / tokens.sum()
    half = t.ppf(0.5 + CONFIDENCE / 2, before.size - 1) * error
    return float(np.expm1(change - half)), float(np.expm1(change + half))


def _percentiles(distribution: Values, confidence: float) -> Interval:
    tail = (1 - confidence) / 2
    low, high = np.quantile(distribution, [tail, 1 - tail])
    return float(low), float(high)


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p values that control the chance of any false discovery (Holm 1979).

    Args:
        p_values: one per hypothesis, in any order.

    Returns:
        Adjusted values in the same order: the k-th smallest times (number of hypotheses - k + 1), made monotone, at
        most 1.
    """
    adjusted = [0.0] * len(p_values)
    running = 0.0
    for position, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        running = max(running, min(1.0, (len(p_values) - position) * p_values[index]))
        adjusted[index] = running
    return adjusted
