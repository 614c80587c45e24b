"""The findings in sentences: what was found, how sure it is, what it cost."""

from typing import Any

from excise.artefacts import Json
from excise.comparison import Change, Interval
from excise.reporting.summary import Column, Reason, Row, Summary
from excise.reporting.tables import (
    exact_percent,
    figure,
    in_words,
    interval,
    number,
    p_value,
    percent,
    plural,
    points,
    shift,
)
from excise.reporting.verdict import FLUENCY, LRP
from excise.tasks.measurement import About


def setting(config: Json, dotted: str) -> Any:
    """A value of the configuration by its dotted name, None where it is not set."""
    value: Any = config
    for part in dotted.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


SIGNIFICANCE = 0.05
"""Corrected p values below this count as established."""

FEW_WINDOWS = 8
"""An interval of perplexity from fewer windows than this comes with a caution."""


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
            return f"{(about.method or 'variant').capitalize()} at {_size(about)}"
        case 0:
            verb = "Holding at their mean" if mean else "Pruning"
        case -1:
            verb = f"Reversing{mean}"
        case str():
            verb = f"Scaling, each by its own number{mean}, the output of"
        case scale:
            verb = f"Scaling by {scale:g}{mean} the output of"
    return f"{verb} {_size(about)}"


def _size(about: About) -> str:
    of_all = "" if about.share is None else f" ({percent(about.share, 2)} of all)"
    if about.size is None:
        return f"an unknown number of {about.unit or 'unit'}s{of_all}"
    if about.size < 1:
        return f"{exact_percent(about.size)} of the {about.unit or 'weight'}s"
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
        chosen = f" chosen by {row.about.method}" if row.about.method and row.about.scale is not None else ""
        return (
            f"{treatment(row.about)}{chosen} took {said_of(target)} {effect(change, target)}{judge} on "
            f"{target.items:,} {plural(target.item)}{price}.{_corrected(row, summary)}"
        )
    gained = summary.goal.gain(change.difference or 0.0) > 0
    wrong = "for none fell" if opposite == "rise" else "for none rose"
    best = f"largest {noun}" if gained else f"least {opposite}, {wrong},"
    return (
        f"No variant {verb} {said_of(target)} reliably{_within(summary)}. The {best} of one that is not broken, "
        f"{name}, went {effect(change, target)}{price}."
    )


def _corrected(row: Row, summary: Summary) -> str:
    """Whether the winner's gain passes the test, corrected where it was picked among several."""
    p = row.cells[summary.goal.metric].p_holm
    if p is None:
        return ""
    verdict = "holds" if p < SIGNIFICANCE else "is not established"
    several = summary.comparisons > 1
    test = f"Corrected for the {summary.comparisons} candidates compared" if several else f"By {_test(row, summary)}"
    return f" {test} it {verdict} (p {_equals(p)})."


def _test(row: Row, summary: Summary) -> str:
    return "the permutation test" if row.change(summary.goal.metric).way == "resampling" else "the test"


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
        f"; corrected (Holm) for the {summary.comparisons} candidates compared: p {_equals(p)}"
        f"{'' if p < SIGNIFICANCE else ', so after correction no change is established'}. {row.variant} was picked as "
        f"the best of them on {items}, which flatters it.{together}"
    )


def _ends(ends: Interval, column: Column) -> str:
    return interval(ends) if column.unit == "share" else " to ".join(shift(end, column.unit) for end in ends)


def about_lrp(summary: Summary) -> str | None:
    """Whether LRP won, in words; None when no LRP variant was in the comparison."""
    rows, target, verdict = summary.rows, summary.target, summary.verdict
    verb, _, _ = gain_words(summary)
    what, budget = said_of(target), "within the budget" if summary.budgets else "by itself"
    if target.task == "behaviour":
        what = target.settings["noun"]
    if not any(row.about.method in LRP for row in rows.values()):
        return None
    if verdict.winner is None:
        return "LRP did not win: nobody did."
    lrp, other = verdict.best_lrp, verdict.best_other
    if lrp is None:
        return (
            f"LRP did not win: no LRP variant {verb} {what} reliably {budget}; {verdict.winner} "
            f"({rows[verdict.winner].about.method}) did."
        )
    change = verdict.lrp_against_best_other
    if other is None or change is None:
        return f"LRP won: {lrp} is the best variant, and no other method {verb} {what} reliably {budget}."
    apart = change.interval is not None and (change.interval[1] < 0 or change.interval[0] > 0)
    high = change.p is not None and change.p < SIGNIFICANCE and apart
    compared = (
        f"{lrp} compared with {other} on the same {plural(target.item)}: {difference(change, target)}, "
        f"so the difference between the two {'is' if high else 'is not'} established"
    )
    first = "LRP won" if verdict.lrp_wins else f"LRP did not win, {other} ({rows[other].about.method}) did"
    drop = rows[other].change(target.address).difference
    unit = " points" if target.unit == "share" else ""
    return (
        f"{first}. The best variant of another method {budget} is {other} "
        f"({shift(drop, target.unit)}{unit}). {compared}."
    )


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
            f"pruned model and compared with itself. {_tested(change)}: p {_equals(change.p)}{_of_many(row, summary)}",
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
    return "Paired permutation test" if change.way == "resampling" else "Paired test from the standard error"


def _proved(column: Column) -> str:
    return said_of(column).removeprefix("the ")


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


def _equals(p: float | None) -> str:
    text = p_value(p)
    return text if text.startswith("<") else f"= {text}"


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
