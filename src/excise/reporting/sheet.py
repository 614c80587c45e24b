"""The summary as one table for CSV: a row per variant, several columns per metric, units in the names."""

from typing import Any

from excise.comparison import Change
from excise.reporting.summary import Column, Row, Summary
from excise.reporting.words import reason

ABOUT = ("kind", "method", "series", "unit", "size", "share", "scale", "ablation")

CHANGE = ("change", "change low", "change high", "relative change", "relative change low", "relative change high")


def sheet(summary: Summary) -> tuple[list[str], list[list[Any]]]:
    """Columns and rows. The goal's metric and the budgets' come first; two scorers or texts never share a column."""
    first = [summary.goal.metric, *summary.goal.within]
    columns = sorted(summary.columns, key=lambda column: first.index(column.address) if column.address in first else 9)
    names = ["variant", *ABOUT, "flag", "broken_because", "within_budget", "winner"]
    for column in columns:
        names.append(head(column))
        if column.compared:
            names += [f"{head(column)} {what}" for what in (*CHANGE, "p", "p Holm")]
        names += [f"{head(column)} stderr"] if _has_error(summary, column) else []
    return names, [_row(summary, row, columns) for row in summary.variants]


def head(column: Column) -> str:
    """A column's name: its address, and what people call it."""
    return f"{column.address} [{column.title}]"


def _has_error(summary: Summary, column: Column) -> bool:
    return summary.baseline.cells[column.address].stderr is not None


def _row(summary: Summary, row: Row, columns: list[Column]) -> list[Any]:
    values: list[Any] = [row.variant, *(getattr(row.about, key) for key in ABOUT)]
    values += ["broken" if row.broken else "", "; ".join(map(reason, row.broken)), not row.over]
    values.append(row.variant == summary.verdict.winner)
    for column in columns:
        cell = row.cells[column.address]
        values.append(cell.figure)
        if column.compared:
            values += [*_change(cell.change), cell.p_holm]
        values += [cell.stderr] if _has_error(summary, column) else []
    return values


def _change(change: Change | None) -> list[float | None]:
    if change is None:
        return [None] * (len(CHANGE) + 1)
    absolute, relative = change.interval or (None, None), change.relative_interval or (None, None)
    return [change.difference, *absolute, change.relative, *relative, change.p]
