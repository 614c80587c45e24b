"""Which variants are broken, which one wins, and what the controls did."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from excise.comparison import Change, compare
from excise.goal import Goal
from excise.reporting.summary import Against, Limits, Peers, Reason, Row, Summary, Verdict
from excise.tasks.measurement import Metric

FLUENCY = "fluency.perplexity"
LANGUAGE = ("language.distinct_2", "language.repetitive_share", "language.empty_share")

Figures = Mapping[str, float | None]
"""Figures of a variant by address."""


def broken(now: Figures, then: Figures, limits: Limits, budgets: Sequence[str]) -> tuple[Reason, ...]:
    """Why a variant's language counts as broken; empty when it does not, or where no text was generated.

    Args:
        now: figures of the variant.
        then: figures of the baseline.
        limits: when it is broken.
        budgets: addresses of the perplexities that have a budget.
    """
    reasons = []
    for address in budgets:
        before, after = then[address], now[address]
        if before and after is not None and after / before - 1 > limits.broken_perplexity_increase:
            reasons.append(
                Reason(kind="perplexity", before=before, after=after, limit=limits.broken_perplexity_increase)
            )
    known = {address: then[address] for address in (FLUENCY, *LANGUAGE) if then.get(address) is not None}
    if any(now[address] is None for address in known):
        return (*reasons, Reason(kind="no tokens"))
    distinct, *shares = LANGUAGE
    tests: list[tuple[str, str, float, Callable[[float, float, float], bool]]] = [
        ("fluency", FLUENCY, limits.broken_fluency_ratio, lambda b, a, most: not 1 / most <= a / b <= most),
        ("distinct_2", distinct, limits.broken_distinct_ratio, lambda b, a, least: a < least * b),
        ("repetitive_share", shares[0], limits.broken_repetitive_rise, lambda b, a, rise: a - b > rise),
        ("empty_share", shares[1], limits.broken_empty_rise, lambda b, a, rise: a - b > rise),
    ]
    for kind, address, limit, fails in tests:
        before, after = known.get(address), now.get(address)
        if before is not None and after is not None and fails(before, after, limit):
            reasons.append(Reason(kind=kind, before=before, after=after, limit=limit))
    return tuple(reasons)


def by_gain(goal: Goal) -> Callable[[Row], tuple[float, ...]]:
    """A key that sorts the best first: the larger gain; of equal ones, which few generations give, the cheaper."""
    price = by_price(goal)
    return lambda row: (-goal.gain(row.change(goal.metric).difference or 0.0), *price(row))


def by_price(goal: Goal) -> Callable[[Row], tuple[float, ...]]:
    """A key that sorts the cheapest first: by the change of what has a budget, in the order of the goal."""

    def key(row: Row) -> tuple[float, ...]:
        changes = ((row.change(address).relative or 0.0, budget.limit) for address, budget in goal.within.items())
        return tuple(change if limit >= 0 else -change for change, limit in changes)

    return key


def leading(summary: Summary) -> Row | None:
    """The winner; where none wins, the candidate that comes closest: of those not broken, else of all.

    Args:
        summary: of all that may win; without a candidate the answer is None.
    """
    name = summary.verdict.winner or summary.verdict.closest
    candidates = [row for row in summary.variants if row.about.kind == "candidate" and name in (None, row.variant)]
    return min(candidates, key=by_gain(summary.goal), default=None)


def judge(
    rows: Sequence[Row],
    goal: Goal,
    values: Mapping[str, Metric],
    *,
    timed: bool,
    serial: bool,
    seed: int,
    resamples: int,
) -> Verdict:
    """Who wins, what the best of another method lacks, and what the controls did.

    Args:
        rows: all variants.
        goal: what decides.
        values: the goal's metric by variant.
        timed: whether that is a measured time. Of candidates as fast as the fastest, as far as the rounds can tell, the
            one that costs least then wins, and a random control of the same size is no comparison.
        serial: whether its items are serial.
        seed: seed of the resampling.
        resamples: resamples and permutations.
    """

    def against(before: Metric, after: Metric) -> Change:
        return compare(before, after, serial=serial, seed=seed, resamples=resamples)

    def improves(row: Row) -> bool:
        return row.change(goal.metric).improves(goal.better)

    sound = sorted((row for row in rows if row.about.kind == "candidate" and not row.broken), key=by_gain(goal))
    eligible = [row for row in sound if not row.over and improves(row)]
    tied: list[Row] = []
    if timed and eligible:
        tied = [row for row in eligible if not against(values[eligible[0].variant], values[row.variant]).apart]
        tied.sort(key=by_price(goal))
        eligible = tied + [row for row in eligible if row not in tied]
    winner = eligible[0] if eligible else None
    other = next((row for row in eligible if row.about.method != eligible[0].about.method), None)
    draws = () if winner is None or timed else _treated_alike(winner, rows)
    return Verdict(
        winner=winner.variant if winner else None,
        eligible=tuple(row.variant for row in eligible),
        tied=tuple(row.variant for row in tied if row is not winner),
        runner_up=other.variant if other else None,
        closest=sound[0].variant if sound else None,
        controls_that_improve=tuple(row.variant for row in rows if row.about.kind == "control" and improves(row)),
        against_controls=(
            Against(variants=draws, change=against(_average([values[name] for name in draws]), values[winner.variant]))
            if winner is not None and draws
            else None
        ),
        against_runner_up=against(values[other.variant], values[winner.variant]) if winner and other else None,
        peers=tuple(
            Peers(variants=names, change=against(values[names[1]], values[names[0]]))
            for names in ([] if timed else _equally_large(rows, goal))
        ),
    )


def _equally_large(rows: Sequence[Row], goal: Goal) -> list[tuple[str, ...]]:
    """Groups of two or more folders of which as much was taken, each with the best first; unit lists have a scale."""
    groups: dict[tuple[object, ...], list[Row]] = {}
    for row in rows:
        about = row.about
        if about.kind == "candidate" and about.size is not None and about.scale is None and not row.broken:
            groups.setdefault((about.unit, about.size, about.pattern), []).append(row)
    ordered = (sorted(group, key=by_gain(goal)) for group in groups.values() if len(group) > 1)
    return [tuple(row.variant for row in group) for group in ordered]


def _treated_alike(winner: Row, rows: Sequence[Row]) -> tuple[str, ...]:
    """The random draws of as many units, to which the same was done."""
    same = ("unit", "size", "pattern", "scale", "ablation")
    return tuple(
        row.variant
        for row in rows
        if row.about.method == "random" and all(getattr(row.about, key) == getattr(winner.about, key) for key in same)
    )


def _average(metrics: Sequence[Metric]) -> Metric:
    """The mean of several variants' values, item by item."""
    numerators, denominators = (np.mean(column, axis=0) for column in zip(*(m.sums() for m in metrics), strict=True))
    aggregate = "perplexity" if metrics[0].aggregate == "perplexity" else "ratio"
    return Metric.of(numerators, denominators, aggregate=aggregate)
