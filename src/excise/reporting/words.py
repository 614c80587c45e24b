"""The findings in sentences: what was done, what was found, what it cost."""

from typing import Any

from excise.artefacts import Json
from excise.comparison import Change
from excise.findings import Spread
from excise.reporting.summary import Column, Findings, Peers, Reason, Row, Summary
from excise.reporting.tables import (
    exact_percent,
    figure,
    in_words,
    interval,
    p_value,
    percent,
    plural,
    points,
    shift,
)
from excise.tasks.measurement import About


def setting(config: Json, dotted: str) -> Any:
    """A value of the configuration by its dotted name, None where it is not set."""
    value: Any = config
    for part in dotted.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


SIGNIFICANCE = 0.05
"""Corrected p values below this count as established."""


def shown(summary: Summary) -> str | None:
    """The variant that the report looks at closely: the winner, else the best one that is not broken."""
    return summary.verdict.winner or summary.verdict.closest


def said_of(column: Column) -> str:
    """What a metric is called in a sentence: ``the share of toxic continuations``, ``perplexity on C4``."""
    if column.task == "behaviour" and column.metric == "share":
        return f"the share of {column.settings['adjective']} continuations"
    if column.task == "perplexity":
        return f"perplexity on {column.label}"
    return column.title


def gain_words(summary: Summary) -> tuple[str, str, str]:
    """Lowering or raising in words: verb in the past, noun, and the noun for a change the wrong way."""
    if summary.goal.better == "lower":
        return "reduced", "reduction", "rise"
    return "raised", "rise", "fall"


def treatment(about: About) -> str:
    """What was done to the chosen units: ``Pruning 100 neurons (0.22 % of all)``."""
    mean = " about their mean" if about.ablation == "mean" else ""
    match about.scale:
        case None:
            return f"{(about.method or 'variant').capitalize()} at {size_of(about)}"
        case 0:
            verb = "Holding at their mean" if mean else "Pruning"
        case -1:
            verb = f"Reversing{mean}"
        case str():
            verb = f"Scaling, each by its own number{mean}, the output of"
        case scale:
            verb = f"Scaling by {scale:g}{mean} the output of"
    return f"{verb} {size_of(about)}"


def size_of(about: About) -> str:
    """How much was taken of the model: ``100 neurons (0.22 % of all)``, ``50 % of the weights (2:4)``."""
    of_all = "" if about.share is None else f" ({percent(about.share, 2)} of all)"
    if about.size is None:
        return f"an unknown number of {about.unit or 'unit'}s{of_all}"
    if about.size < 1:
        pattern = "" if about.pattern is None else f" ({about.pattern})"
        return f"{exact_percent(about.size)} of the {about.unit or 'weight'}s{pattern}"
    return f"{about.size:,g} {about.unit or 'unit'}s{of_all}"


def difference(change: Change, column: Column) -> str:
    """``-7.3 points, 95 % interval -10.4 to -4.2``."""
    if column.unit == "share":
        said = f"{points(change.difference or 0.0)} points"
        return said + (f", 95 % interval {interval(change.interval)}" if change.interval else "")
    if column.metric == "perplexity":
        return cost(change)
    said = shift(change.difference, column.unit)
    if change.interval:
        said += f", 95 % interval {' to '.join(shift(end, column.unit) for end in change.interval)}"
    return said


def effect(change: Change, column: Column) -> str:
    """Before and after, the difference and its interval, in words."""
    before, after = (figure(value, column.unit, digits(column)) for value in (change.before, change.after))
    relative = ""
    if column.metric != "perplexity" and change.relative is not None:
        relative = f"; {percent(change.relative, 0, signed=True)} relative"
        if change.relative_interval is not None:
            low, high = change.relative_interval
            relative += f", {percent(low, 0, signed=True)} to {percent(high, 0, signed=True)}"
    return f"from {before} to {after} ({difference(change, column)}{relative})"


def digits(column: Column) -> int:
    """How many decimals a number of this metric is shown with."""
    return 2 if column.metric == "perplexity" else 3


def cost(change: Change) -> str:
    """A relative change: ``+3.8 %, 95 % interval +2.5 to +5.2 %``."""
    said = percent(change.relative, signed=True)
    if change.relative_interval is None:
        return said
    low, high = change.relative_interval
    return f"{said}, 95 % interval {points(low)} to {percent(high, signed=True)}"


def _within(summary: Summary) -> str:
    """The budgets in words: ``within a perplexity increase of 5 %``; empty where there are none."""
    said = []
    for column in summary.budgets:
        budget = summary.goal.within[column.address]
        if column.task == "perplexity" and budget.relative and budget.limit >= 0:
            where = "" if len(summary.budgets) == 1 else f" on {column.label}"
            said.append(f"a perplexity increase of {exact_percent(budget.limit)}{where}")
        else:
            said.append(f"{column.title} {in_words(budget)}")
    return f" within {' and '.join(said)}" if said else ""


def _prices(row: Row, summary: Summary) -> str:
    """What the budgets' metrics went through."""
    said = []
    for column in summary.budgets:
        change = row.change(column.address)
        went = " to ".join(figure(value, column.unit, digits(column)) for value in (change.before, change.after))
        said.append(f"{said_of(column)} went from {went} ({difference(change, column)})")
    return "".join(f"; {one}" for one in said)


def answer(summary: Summary) -> str:
    """The result in one or two sentences, with its interval and its cost."""
    target, name = summary.target, shown(summary)
    verb, noun, opposite = gain_words(summary)
    if name is None:
        return (
            f"No result: of {len(summary.variants) - 1} variants none is left to judge, each one is a control or its "
            "language is broken."
        )
    row = summary.rows[name]
    change, price = row.change(target.address), _prices(row, summary)
    if summary.verdict.winner:
        judge = f", judged by {target.label}" if target.task == "behaviour" else ","
        listed = row.about.method is not None and row.about.scale is not None
        chosen = f" chosen by {row.about.method}" if listed else ""
        judged = f"{judge} on {target.items:,} {plural(target.item)}"
        if (several := summary.findings_of(name)) is not None:
            return _found_several_times(several, f"{treatment(row.about)}{chosen}", judged, summary)
        once = " It was found once: the noise of finding is not in these intervals." if listed else ""
        return (
            f"{treatment(row.about)}{chosen} took {said_of(target)} {effect(change, target)}{judged}{price}."
            f"{_corrected(row, summary)}{once}"
        )
    if summary.verdict.peers:
        return " ".join(_best_of(peers, summary) for peers in summary.verdict.peers)
    gained = summary.goal.gain(change.difference or 0.0) > 0
    wrong = "for none fell" if opposite == "rise" else "for none rose"
    best = f"largest {noun}" if gained else f"least {opposite}, {wrong},"
    return (
        f"No variant {verb} {said_of(target)} reliably{_within(summary)}. The {best} of one that is not broken, "
        f"{name}, went {effect(change, target)}{price}."
    )


def _found_several_times(findings: Findings, done: str, judged: str, summary: Summary) -> str:
    """The result of several findings: their mean, with the noise of finding in its interval."""
    target, found = summary.target, findings.spreads[summary.goal.metric]
    prices = "".join(
        f"; {said_of(column)} by {spread_words(findings.spreads[column.address], column)}" for column in summary.budgets
    )
    middle = found.before + found.difference
    before, after = (figure(value, target.unit, digits(target)) for value in (found.before, middle))
    return (
        f"{done}, found {len(findings.variants)} times from references of its own each time, took {said_of(target)} "
        f"from {before} to {after} on average ({spread_words(found, target)}){judged}{prices}. The intervals are those "
        "of one more finding: they contain the noise of finding and of judging. Only the first finding competes."
        f"{_corrected(summary.rows[findings.variants[0]], summary)}"
    )


def spread_words(found: Spread, column: Column) -> str:
    """``-8.6 points, 95 % interval -11.9 to -5.3, at worst -8.0``; of a perplexity the relative change."""
    if column.metric == "perplexity" and found.relative is not None:
        middle, ends, worst, unit = found.relative, found.relative_interval, found.relative_worst, " %"
    else:
        middle, ends, worst = found.difference, found.interval, found.worst
        unit = " points" if column.unit == "share" else ""

    def said(value: float) -> str:
        return points(value) if unit == " %" else shift(value, column.unit)

    text = f"{said(middle)}{unit}"
    text += f", 95 % interval {said(ends[0])} to {said(ends[1])}" if ends else ""
    return text + (f", at worst {said(worst)}" if worst is not None else "")


def _best_of(peers: Peers, summary: Summary) -> str:
    """Which of several variants that take as much of the model does best, and by how much."""
    target, (best, second, *_) = summary.target, peers.variants
    after, dense = peers.change.after, summary.baseline.cells[target.address].figure
    figures = [figure(value, target.unit, digits(target)) for value in (after, dense)]
    return (
        f"With {size_of(summary.rows[best].about)} pruned {best} is best of {len(peers.variants)}: {said_of(target)} "
        f"{figures[0]} (unpruned {figures[1]}); against {second}, the next, {difference(peers.change, target)}, "
        f"p {equals(peers.change.p)}."
    )


def _corrected(row: Row, summary: Summary) -> str:
    """Whether the winner's gain passes the test, corrected where it was picked among several."""
    p = row.cells[summary.goal.metric].p_holm
    if p is None:
        return ""
    verdict = "holds" if p < SIGNIFICANCE else "is not established"
    several = summary.comparisons > 1
    test = f"Corrected for the {summary.comparisons} candidates compared" if several else f"By {_test(row, summary)}"
    return f" {test} it {verdict} (p {equals(p)})."


def _test(row: Row, summary: Summary) -> str:
    return "the permutation test" if row.change(summary.goal.metric).way == "resampling" else "the test"


def against_other_methods(summary: Summary) -> str | None:
    """The winner against the best variant of another method, in words; None without a winner or another method."""
    rows, target, verdict = summary.rows, summary.target, summary.verdict
    if verdict.winner is None:
        return None
    method = rows[verdict.winner].about.method
    if all(row.about.method == method for row in rows.values() if row.about.kind == "candidate"):
        return None
    budget = "within the budget" if summary.budgets else "by itself"
    change = verdict.against_runner_up
    if verdict.runner_up is None or change is None:
        verb, _, _ = gain_words(summary)
        what = target.settings["noun"] if target.task == "behaviour" else said_of(target)
        return f"No variant of another method {verb} {what} reliably {budget}."
    sure = change.p is not None and change.p < SIGNIFICANCE and change.apart
    return (
        f"Against {verdict.runner_up} ({rows[verdict.runner_up].about.method}), the best variant of another method "
        f"{budget}, on the same {plural(target.item)}: {difference(change, target)}, so the difference between the two "
        f"{'is' if sure else 'is not'} established."
    )


def reason(why: Reason) -> str:
    """Why a variant's language counts as broken."""
    before, after, limit = why.before or 0.0, why.after or 0.0, why.limit or 0.0
    match why.kind:
        case "perplexity":
            rise = percent(after / before - 1, signed=True)
            return f"perplexity {rise} (limit {exact_percent(limit, signed=True)})"
        case "fluency":
            limits = f"limits x{1 / limit:.2f} and x{limit:.2f}"
            return f"perplexity of its generations x{after / before:.2f} ({limits})"
        case "distinct_2":
            return f"distinct-2 {after:.2f} against {before:.2f} (limit x{limit:.2f})"
        case "repetitive_share" | "empty_share":
            word = why.kind.removesuffix("_share")
            return f"{word} generations from {percent(before)} to {percent(after)} (limit +{100 * limit:g} points)"
        case _:
            return "no generation with tokens to judge"


def equals(p: float | None) -> str:
    """``= 0.031``, ``< 0.001``."""
    text = p_value(p)
    return text if text.startswith("<") else f"= {text}"
