"""How sure the answer is, in sentences: what was compared and tested, what it cost, what controls and others say."""

from excise.artefacts import Json
from excise.comparison import Change, Interval
from excise.reporting.summary import Column, Row, Summary
from excise.reporting.tables import in_words, interval, number, percent, plural, shift
from excise.reporting.verdict import FLUENCY
from excise.reporting.words import (
    SIGNIFICANCE,
    cost,
    difference,
    effect,
    equals,
    gain_words,
    reason,
    said_of,
    setting,
    shown,
)

FEW_WINDOWS = 8
"""An interval of perplexity from fewer windows than this comes with a caution."""


def confidence(summary: Summary, config: Json) -> list[str]:
    """How sure the answer is: one sentence per matter."""
    target, name = summary.target, shown(summary)
    said = []
    if name is not None:
        row = summary.rows[name]
        change = row.change(target.address)
        what = "was answered by" if target.task == "behaviour" else "was measured with"
        said += [
            f"Each of the {change.items:,} evaluation {plural(target.item)} {what} the unpruned and {_by(what)} the "
            f"pruned model and compared with itself. {_tested(change)}: p {equals(change.p)}{_of_many(row, summary)}",
        ]
        if change.detectable:
            size = number(100 * change.detectable, 1) if target.unit == "share" else number(change.detectable, 3)
            said.append(
                f"A true change of {size}{' points' if target.unit == 'share' else ''} or more would have been found "
                "with 80 % probability, by one test without correction; smaller ones may go unseen here."
            )
        said += [_price(row, column, summary) for column in summary.budgets]
        said += _language(row, summary)
        said += _against_controls(summary)
        said += _other_measurements(summary, row)
    if target.task == "behaviour" and setting(config, "generations.scorer") == target.label:
        said.append(
            f"{target.label} also picked the references that the units were found with. A scorer that had no part in "
            "that is better evidence."
        )
    if summary.of_task("degeneration") and FLUENCY not in summary.baseline.cells:
        said.append("The perplexity of the generations under the unpruned model was not measured.")
    said += [
        f"{row.variant} is broken, so its {_proved(target)} proves nothing: {'; '.join(map(reason, row.broken))}."
        for row in summary.variants
        if row.broken
    ]
    return said


def _by(what: str) -> str:
    return what.rpartition(" ")[2]


def _tested(change: Change) -> str:
    ways = {"resampling": "Paired permutation test", "none changed": "No answer changed"}
    return ways.get(change.way, "Paired test from the standard error")


def _of_many(row: Row, summary: Summary) -> str:
    """What it means for a change that its variant was picked among several, or that it was not."""
    cell, target = row.cells[summary.goal.metric], summary.target
    p = 1.0 if cell.p_holm is None else cell.p_holm
    items = f"these {plural(target.item)}"
    if summary.comparisons == 1:
        end = "" if p < SIGNIFICANCE else ", so no change is established"
        return f"{end}. {row.variant} was the only candidate on {items}, so none was picked by them."
    change = row.change(summary.goal.metric)
    together = (
        ""
        if change.simultaneous_interval is None
        else " An interval that holds for all of them together is "
        + _ends(change.simultaneous_interval, target)
        + (" points." if target.unit == "share" else ".")
    )
    return (
        f"; corrected (Holm) for the {summary.comparisons} candidates compared: p {equals(p)}"
        f"{'' if p < SIGNIFICANCE else ', so after correction no change is established'}. {row.variant} was picked as "
        f"the best of them on {items}, which flatters it.{together}"
    )


def _ends(ends: Interval, column: Column) -> str:
    return interval(ends) if column.unit == "share" else " to ".join(shift(end, column.unit) for end in ends)


def _proved(column: Column) -> str:
    return said_of(column).removeprefix("the ")


def _price(row: Row, column: Column, summary: Summary) -> str:
    """How sure it is that a variant is within a budget."""
    change, budget = row.change(column.address), summary.goal.within[column.address]
    ends = change.relative_interval if budget.relative else change.interval
    named = "Perplexity" if column.task == "perplexity" and len(summary.budgets) == 1 else said_of(column)
    if ends is None:
        few = f"on one {column.item}" if column.items == 1 else "without values"
        return f"{named} was measured {few}, so its change has no interval."
    best, worst = ends if budget.limit >= 0 else ends[::-1]
    limit = budget.limit
    beyond, inside = (best > limit, worst <= limit) if limit >= 0 else (best < limit, worst >= limit)
    place = "lies beyond" if beyond else "lies within" if inside else "reaches beyond"
    caution = ""
    if column.item == "window" and column.items < FEW_WINDOWS:
        caution = f" {column.items} windows are few: take this interval with caution."
    said = cost(change) if budget.relative else difference(change, column)
    return (
        f"{named} was compared {column.item} by {column.item} ({column.items:,} of them): {said}. The interval {place} "
        f"the budget of {in_words(budget)}; it is about {plural(column.item)} like these.{caution}"
    )


def _language(row: Row, summary: Summary) -> list[str]:
    """The degeneration figures of a variant beside those of the unpruned model."""
    now, then = row.cells, summary.baseline.cells
    if not summary.of_task("degeneration"):
        return []
    figures = []
    if FLUENCY in then:
        read = f"{number(then[FLUENCY].figure)} to {number(now[FLUENCY].figure)}"
        figures.append(f"perplexity of the generations under the unpruned model {read}")
    key = "language.distinct_2"
    figures.append(f"distinct-2 {number(then[key].figure, 3)} to {number(now[key].figure, 3)}")
    for word in ("repetitive", "empty"):
        key = f"language.{word}_share"
        figures.append(f"{word} generations {percent(then[key].figure)} to {percent(now[key].figure)}")
    return [f"What {row.variant} writes is still language, as far as these figures tell: {', '.join(figures)}."]


def _against_controls(summary: Summary) -> list[str]:
    verdict, said = summary.verdict, []
    _, noun, _ = gain_words(summary)
    side = "below" if summary.goal.better == "lower" else "above"
    controls = [row.variant for row in summary.variants if row.about.kind == "control"]
    if not controls:
        said.append("There are no controls in this table, so part of the change may be what any damage would do.")
    else:
        improve = verdict.controls_that_improve
        if len(controls) == 1:
            who = f"The only control, {controls[0]}, {'also shows a' if improve else 'shows no'}"
        elif improve:
            who = f"Of {len(controls)} controls {len(improve)} also {'shows' if len(improve) == 1 else 'show'} a"
        else:
            who = f"None of the {len(controls)} controls shows a"
        named = f": {', '.join(improve)}" if improve and len(controls) > 1 else ""
        said.append(f"{who} {noun} whose interval lies {side} zero{named}.")
    if (against := verdict.against_controls) is not None:
        names = against.variants
        drawn = "random draw" if len(names) == 1 else "average of the random draws"
        unit = summary.rows[names[0]].about.unit or "unit"
        said.append(
            f"Against the {drawn} of as many {unit}s, treated alike ({', '.join(names)}): "
            f"{difference(against.change, summary.target)}."
        )
    return said


def _other_measurements(summary: Summary, row: Row) -> list[str]:
    """What the same metric of other measurements says: other scorers, other texts."""
    target = summary.target
    _, noun, _ = gain_words(summary)
    others = [
        column
        for column in summary.columns
        if column.task == target.task and column.metric == target.metric and column.address != target.address
    ]
    if not others and target.task == "behaviour":
        return [
            f"{target.settings['noun'].capitalize()} was judged by one scorer only ({target.label}); scorers disagree, "
            "and a single one sees only part of it."
        ]
    said = []
    for column in others:
        change = row.change(column.address)
        agrees = change.improves(summary.goal.better)
        said.append(
            f"By {column.label}, which did not decide: {effect(change, column)}"
            f"{', which agrees.' if agrees else f', which does not establish a {noun}.'}"
        )
    return said
