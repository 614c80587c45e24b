"""The tables of the report: one of all variants, one of their language, and one or more per task."""

from collections.abc import Sequence
from html import escape

from excise.reporting.markup import table
from excise.reporting.summary import Column, Row, Summary
from excise.reporting.tables import (
    NONE,
    counted,
    figure,
    interval,
    number,
    p_value,
    percent,
    plural,
    points,
    shift,
)
from excise.reporting.verdict import FLUENCY
from excise.reporting.words import digits, said_of


def kind_of(summary: Summary, row: Row) -> str:
    """How a variant's row looks: ``winner``, ``broken``, or its kind."""
    if row.variant == summary.verdict.winner:
        return "winner"
    return "broken" if row.broken else row.about.kind


def mark(summary: Summary, row: Row) -> str:
    """What is noted beside a variant."""
    if row.variant == summary.verdict.winner:
        return "best within budget" if summary.budgets else "best"
    words = ["broken"] if row.broken else []
    words += ["control"] if row.about.kind == "control" else []
    words += ["over budget"] if row.over and not row.broken else []
    return ", ".join(words)


def change_cell(row: Row, column: Column) -> str:
    """A change with its interval: of a perplexity relative, of a share in points."""
    change = row.cells[column.address].change
    if change is None:
        return NONE
    if column.metric == "perplexity":
        ends = change.relative_interval
        said = points(change.relative) if change.relative is not None else NONE
        return said + (f" ({interval(ends)})" if ends else "")
    said = shift(change.difference, column.unit)
    return said + (f" ({' to '.join(shift(end, column.unit) for end in change.interval)})" if change.interval else "")


def change_head(column: Column) -> str:
    """Head of a column of changes."""
    if column.metric == "perplexity":
        return "rise, % (95 % interval)"
    return f"change{', points' if column.unit == 'share' else ''} (95 % interval)"


def main_table(summary: Summary) -> str:
    """Every variant with what it costs and what it gains."""
    target = summary.target
    units = {row.about.unit for row in summary.variants if row.about.unit}
    header = ["variant", f"{units.pop()}s" if len(units) == 1 else "size"]
    for column in (*summary.budgets, target):
        header += [column.title, change_head(column)]
    header += ["relative", "p (Holm)", "note"]
    rows = []
    for row in summary.variants:
        cells = [row.variant if row is not summary.baseline else f"{row.variant} (unpruned)", size(row)]
        for column in (*summary.budgets, target):
            cells += [figure(row.cells[column.address].figure, column.unit, digits(column)), change_cell(row, column)]
        cell = row.cells[target.address]
        cells.append(percent(cell.change.relative, 0, signed=True) if cell.change else NONE)
        cells += [p_value(cell.p_holm), mark(summary, row)]
        rows.append((kind_of(summary, row), cells))
    compared = "; ".join(f"{said_of(one)}: {one.items:,} {plural(one.item)}" for one in (*summary.budgets, target))
    note = (
        f"Bold: the winner. Grey: controls. A broken variant's {said_of(target).removeprefix('the ')} proves nothing. "
        f"Intervals: of the paired differences ({compared}), each for its variant alone. p: paired test, corrected for "
        f"{counted(summary.comparisons, 'candidate')} (Holm)."
    )
    return table(header, rows, prose=("note",)) + f'<p class="note">{escape(note)}</p>'


def size(row: Row) -> str:
    """How many units a variant takes, and which share of all."""
    about = row.about
    if about.size is None:
        return NONE
    number_of = f"{about.size:,g}" if about.size >= 1 else percent(about.size)
    return number_of + (f" ({percent(about.share, 2)})" if about.share is not None and about.size >= 1 else "")


_LANGUAGE = {
    "language.distinct_1": "distinct-1",
    "language.distinct_2": "distinct-2",
    "language.distinct_3": "distinct-3",
    "language.rur": "RUR",
    "language.repetitive_share": "repetitive",
    "language.empty_share": "empty",
    "language.mean_tokens": "tokens",
    FLUENCY: "perplexity of the generations",
}

_DIGITS = {"language.mean_tokens": 1, FLUENCY: 2}


def degeneration(summary: Summary) -> list[str]:
    """Whether what the variants write is still language; nothing where no text was generated."""
    if not summary.of_task("degeneration"):
        return []
    base = summary.baseline.cells
    keys = [key for key in _LANGUAGE if key in base]
    rows = []
    for row in summary.variants:
        cells = [figure(row.cells[key].figure, summary.column(key).unit, _DIGITS.get(key, 3)) for key in keys]
        rows.append((kind_of(summary, row), [row.variant, *cells, "broken" if row.broken else "yes"]))
    first = ""
    if FLUENCY in base:
        read = summary.column(FLUENCY).settings["num_generations"]
        made = [column.settings["num_generations"] for column in summary.of_task("behaviour")]
        first = f", of the first {counted(read, 'answer')} to each" if made and read != max(made) else ""
    note = (
        "distinct-n: different n-grams over all n-grams of the generations; RUR: different tokens over tokens, mean; "
        "repetitive: RUR at or below 0.5; perplexity of the generations: under the unpruned model, given the "
        f"prompt{first}. Very low is repetition, very high is not language."
    )
    header = ["variant", *(_LANGUAGE[key] for key in keys), "language?"]
    return ["<h2>Is it still language?</h2>", table(header, rows), f'<p class="note">{escape(note)}</p>']


TITLES = {
    "behaviour": "By scorer",
    "perplexity": "Perplexity by text",
    "capability": "What can it still do?",
    "cost": "What it takes to run",
}
"""Headings of tasks; another task goes by its name."""


def measurements(summary: Summary) -> list[str]:
    """A section for each task whose figures are not all in the table of all variants."""
    parts = []
    main = {summary.target.address, *summary.goal.within}
    for task in dict.fromkeys(column.task for column in summary.columns):
        columns = summary.of_task(task)
        if task in ("degeneration", "fluency") or all(column.address in main for column in columns):
            continue
        parts.append(f"<h2>{escape(TITLES.get(task, task.capitalize()))}</h2>")
        if task == "behaviour":
            for name in dict.fromkeys(column.measurement for column in columns):
                parts += _one(summary, [column for column in columns if column.measurement == name])
        else:
            parts += _one(summary, columns)
    return parts


def _one(summary: Summary, columns: Sequence[Column]) -> list[str]:
    """A table of metrics: figures of the unpruned model, figures with change and interval of the others."""
    header = ["variant"]
    for column in columns:
        header += [column.title] + (["change (95 % interval)", "p (Holm)"] if column.compared else [])
    rows = []
    for row in summary.variants:
        cells = [row.variant]
        for column in columns:
            cell = row.cells[column.address]
            said = figure(cell.figure, column.unit, digits(column))
            if row is summary.baseline and cell.stderr is not None:
                said += f" ± {number(cell.stderr, 3)}"
            cells.append(said)
            if column.compared:
                cells += [change_cell(row, column), p_value(cell.p_holm)]
        rows.append((kind_of(summary, row), cells))
    return [table(header, rows), f'<p class="note">{escape(_note(columns))}</p>']


def _note(columns: Sequence[Column]) -> str:
    first = columns[0]
    counts = "; ".join(
        f"{name}: {items:,} {plural(item)}"
        for name, (items, item) in {one.label: (one.items, one.item) for one in columns}.items()
        if items
    )
    if first.task == "behaviour":
        kind = first.settings["adjective"]
        return (
            f"{counts}. Mean score: over all continuations. Expected maximum: mean over prompts of the highest score "
            f"among the draws. Probability: share of prompts with a {kind} draw. {kind.capitalize()} share: share of "
            f"{kind} continuations. Scores of different scorers are not comparable, so each has a table of its own."
        )
    if first.task == "capability":
        harness = first.settings.get("versions", {}).get("lm-eval", "")
        limit = (first.settings.get("harness") or {}).get("limit")
        lower = ", ".join(one.title for one in columns if one.direction == "lower")
        return (
            f"By lm-evaluation-harness {harness}, with its own prompts. Unpruned: ± standard error. Changes: document "
            f"by document, each interval for its variant alone. {counts}."
            + (f" Lower is better: {lower}." if lower else "")
            + (f" Only the first {limit:,} documents of each task were used." if limit else "")
        )
    return f"{counts}. Changes are paired, each interval for its variant alone."
