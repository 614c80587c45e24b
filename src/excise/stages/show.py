"""Print the short table of finished runs, and where their reports are."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from excise.reporting.summary import Column, Row, Summary


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this stage."""
    parser.add_argument("summaries", type=Path, nargs="+", help="summary.json of one or more runs")


def run(arguments: argparse.Namespace) -> None:
    """Write one table per summary to standard output."""
    import sys

    from excise.reporting.summary import read_summary

    parts = []
    for path in arguments.summaries:
        report = path.with_name("report.html")
        parts.append(table(read_summary(path)) + (f"\nreport: {report}\n" if report.is_file() else "\n"))
    sys.stdout.write("\n".join(parts))


def table(summary: "Summary") -> str:
    """A summary as a table in plain text: size, budgets, goal, verdict."""
    from excise.reporting.tables import figure, plural
    from excise.reporting.words import digits, spread_words

    columns = [*summary.budgets, summary.target]
    rows = [["variant", "N", *(head for column in columns for head in _heads(column)), ""]]
    for row in summary.variants:
        cells = [row.variant, f"{row.about.size or 0:g}"]
        for column in columns:
            change = "" if row is summary.baseline else change_text(row, column)
            cells += [figure(row.cells[column.address].figure, column.unit, digits(column)), change]
        rows.append([*cells, _mark(summary, row)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    measured = "; ".join(f"{column.title}, {column.items} {plural(column.item)}" for column in columns[::-1])
    lines = [f"{(summary.meta.get('model') or {}).get('id')}: {measured}", ""]
    for name, *cells, mark in rows:
        figures = "  ".join(cell.rjust(width) for cell, width in zip(cells, widths[1:-1], strict=True))
        lines.append(f"{name:<{widths[0]}}  {figures}  {mark}".rstrip())
    for several in summary.findings:
        said = [f"{column.title} {spread_words(several.spreads[column.address], column)}" for column in columns[::-1]]
        lines += ["", f"{several.variants[0]} found {len(several.variants)} times: {'; '.join(said)}"]
    return "\n".join(lines)


def _heads(column: "Column") -> tuple[str, str]:
    if column.metric == "perplexity":
        return "perplexity", "rise, % [95 %]"
    name = column.settings.get("adjective") or column.metric
    return name, f"change{', points' if column.unit == 'share' else ''} [95 %]"


def change_text(row: "Row", column: "Column") -> str:
    """A variant's change with its interval, as in the table."""
    from excise.reporting.tables import points, shift

    change = row.change(column.address)
    if column.metric == "perplexity":
        ends, said = change.relative_interval, points(change.relative or 0.0)
        return said + (f" [{', '.join(map(points, ends))}]" if ends else "")
    said = shift(change.difference, column.unit)
    return said + (f" [{', '.join(shift(end, column.unit) for end in change.interval)}]" if change.interval else "")


def _mark(summary: "Summary", row: "Row") -> str:
    if row.variant == summary.verdict.winner:
        return "<- best"
    if row.broken:
        return "broken"
    if row.about.kind == "control":
        return "control"
    if row.about.kind == "replicate":
        return "found anew"
    return "over budget" if row.over else ""
