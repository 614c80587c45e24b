"""The tables of the report: one of all variants, one of their language, and one or more per task."""

from collections.abc import Sequence

from excise.reporting.markup import Table, TaskSection
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
from excise.reporting.words import difference, digits, said_of, spread_words


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
    words += ["found anew"] if row.about.kind == "replicate" else []
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


def main_table(summary: Summary) -> Table:
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
    return Table(header=header, rows=rows, prose=("note",), note=note)


def findings_table(summary: Summary) -> Table | None:
    """Variants that were found several times: each finding, then all of them; None where there are none."""
    target = summary.target
    columns = [target, *summary.budgets]
    rows: list[tuple[str, list[str]]] = []
    for several in summary.findings:
        for name in several.variants:
            row = summary.rows[name]
            cells = [
                cell
                for one in columns
                for cell in (figure(row.cells[one.address].figure, one.unit, digits(one)), change_cell(row, one))
            ]
            rows.append((kind_of(summary, row), [name, *cells]))
        found = [several.spreads[one.address] for one in columns]
        deviations = [shift(one.deviation, column.unit) for one, column in zip(found, columns, strict=True)]
        words = [spread_words(one, column) for one, column in zip(found, columns, strict=True)]
        rows.append(("", ["deviation", *(cell for said in deviations for cell in (NONE, said.removeprefix("+")))]))
        rows.append(("winner", [f"all {len(several.variants)}", *(cell for said in words for cell in (NONE, said))]))
    note = (
        "Each finding has references of its own: other answers of the model, other windows of text. Intervals of a "
        "row: of judging alone. All: the mean, and the interval of one more finding, with the noise of both."
    )
    header = ["finding", *(head for one in columns for head in (one.title, change_head(one)))]
    return Table(header=header, rows=rows, note=note) if rows else None


def peers_table(summary: Summary) -> Table | None:
    """Variants that take as much of the model, the best first; None where there are no two."""
    target, rows = summary.target, []
    for peers in summary.verdict.peers:
        figures = [
            f"{name} {figure(summary.rows[name].cells[target.address].figure, target.unit, digits(target))}"
            for name in peers.variants
        ]
        change = difference(peers.change, target)
        rows.append(("", [size(summary.rows[peers.variants[0]]), "; ".join(figures), change, p_value(peers.change.p)]))
    note = (
        f"{target.title}, the best first. The first against the second: the same {plural(target.item)}, in pairs, not "
        "corrected for their having been picked."
    )
    header = ["pruned", "variants", "first against second", "p"]
    return Table(header=header, rows=rows, prose=("variants",), note=note) if rows else None


def size(row: Row) -> str:
    """How many units a variant takes, and which share of all."""
    about = row.about
    if about.size is None:
        return NONE
    if about.pattern is not None:
        return f"{percent(about.size)}, {about.pattern}"
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


def _degeneration(summary: Summary) -> Table:
    """Whether what the variants write is still language."""
    base = summary.baseline.cells
    keys = [key for key in _LANGUAGE if key in base]
    rows = []
    for row in summary.variants:
        cells = [figure(row.cells[key].figure, summary.column(key).unit, _DIGITS.get(key, 3)) for key in keys]
        rows.append((kind_of(summary, row), [row.variant, *cells, "broken" if row.broken else "yes"]))
    read = ""
    if FLUENCY in base:
        first = summary.column(FLUENCY).settings["num_generations"]
        made = [column.settings["num_generations"] for column in summary.of_task("behaviour")]
        read = f", of the first {counted(first, 'generation')} for each" if made and first != max(made) else ""
    header = ["variant", *(_LANGUAGE[key] for key in keys), "language?"]
    return Table(header=header, rows=rows, read=read)


TITLES = {"perplexity": "Perplexity by text", "cost": "What it takes to run"}
"""Headings of tasks that have no template of their own; another task goes by its name."""


def task_sections(summary: Summary) -> list[TaskSection]:
    """A section for each task whose figures are not all in the table of all variants; language first."""
    found, main = [], {summary.target.address, *summary.goal.within}
    if columns := summary.of_task("degeneration"):
        found.append(_section("degeneration", columns, [_degeneration(summary)]))
    for task in dict.fromkeys(column.task for column in summary.columns):
        columns = summary.of_task(task)
        if task in ("degeneration", "fluency") or all(column.address in main for column in columns):
            continue
        groups: list[Sequence[Column]] = [columns]
        if task == "behaviour":  # scores of different scorers are not comparable
            names = dict.fromkeys(column.measurement for column in columns)
            groups = [[column for column in columns if column.measurement == name] for name in names]
        found.append(_section(task, columns, [_metrics(summary, group) for group in groups]))
    return found


def _section(task: str, columns: Sequence[Column], tables: Sequence[Table]) -> TaskSection:
    return TaskSection(
        task=task,
        title=TITLES.get(task, task.capitalize()),
        tables=tables,
        settings=dict(columns[0].settings),
        lower=[one.title for one in columns if one.direction == "lower"],
    )


def _metrics(summary: Summary, columns: Sequence[Column]) -> Table:
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
    counts = "; ".join(
        f"{name}: {items:,} {plural(item)}"
        for name, (items, item) in {one.label: (one.items, one.item) for one in columns}.items()
        if items
    )
    return Table(header=header, rows=rows, counts=counts)
