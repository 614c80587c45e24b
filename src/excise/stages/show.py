"""Print the short table of finished runs, and where their reports are."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this stage."""
    parser.add_argument("summaries", type=Path, nargs="+", help="summary.json of one or more runs")


def run(arguments: argparse.Namespace) -> None:
    """Write one table a summary to standard output."""
    import sys

    from excise.artefacts import read_json

    parts = []
    for path in arguments.summaries:
        report = path.with_name("report.html")
        parts.append(table(read_json(path)) + (f"\nreport: {report}\n" if report.is_file() else "\n"))
    sys.stdout.write("\n".join(parts))


def table(body: dict[str, Any]) -> str:
    """A summary as a table in plain text."""
    from excise.reporting.tables import percent, points

    def interval(change: float, ends: Sequence[float] | None) -> str:
        return points(change) + (f" [{', '.join(map(points, ends))}]" if ends else "")

    scorer = body["primary"]
    rule = body["scorers"][scorer]
    kind = body["behaviour"]["adjective"]
    rows = [["variant", "N", "perplexity", "rise, % [95 %]", kind, "change, points [95 %]", ""]]
    for row in body["variants"]:
        cost = change = ""
        if row["kind"] != "baseline":
            cost = interval(row["perplexity_change"], row["perplexity_interval"])
            change = interval(row["change"][scorer]["difference"], row["change"][scorer]["interval"])
        mark = "" if row["within_budget"] else "over budget"
        if row["kind"] == "control":
            mark = "control"
        if row["flag"]:
            mark = "broken"
        if row["variant"] == body["verdict"]["winner"]:
            mark = "<- best"
        share = percent(row["scores"][scorer]["share"])
        rows.append([row["variant"], str(row["neurons"]), f"{row['perplexity']:.2f}", cost, share, change, mark])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        f"{body['meta']['model']['id']}: {body['prompts']} prompts; {scorer}, {kind} = {rule['strictness']} "
        f"{rule['threshold']}; perplexity on {body['perplexity']['text']} ({body['perplexity']['protocol']})",
        "",
    ]
    for name, *cells, mark in rows:
        figures = "  ".join(cell.rjust(width) for cell, width in zip(cells, widths[1:-1], strict=True))
        lines.append(f"{name:<{widths[0]}}  {figures}  {mark}".rstrip())
    return "\n".join(lines)
