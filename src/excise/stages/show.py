"""Print the short table of finished runs, and where their reports are."""

import argparse
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

    scorer = body["primary"]
    rule = body["scorers"][scorer]
    kind = body["behaviour"]["adjective"]
    lines = [
        f"{body['meta']['model']['id']}: {body['prompts']} prompts; {scorer}, {kind} = {rule['strictness']} "
        f"{rule['threshold']}; perplexity on {body['perplexity']['text']} ({body['perplexity']['protocol']})",
        "",
        f"{'variant':<24}{'N':>6}{'perplexity':>12}{'':>9}{kind:>11}{'change in points [95 %]':>29}",
    ]
    for row in body["variants"]:
        cost = change = ""
        if row["kind"] != "baseline":
            cost = percent(row["perplexity_change"], signed=True)
            paired = row["change"][scorer]
            change = f"{points(paired['difference'])} [{', '.join(map(points, paired['interval']))}]"
        share = percent(row["scores"][scorer]["share"])
        mark = "  broken" if row["flag"] else "  <- best" if row["variant"] == body["verdict"]["winner"] else ""
        figures = f"{row['neurons']:>6}{row['perplexity']:>12.2f}{cost:>9}{share:>11}{change:>29}"
        lines.append(f"{row['variant']:<24}{figures}{mark}")
    return "\n".join(lines)
