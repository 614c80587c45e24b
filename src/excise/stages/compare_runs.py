"""Say whether two runs of one experiment come to the same conclusions, on another processor for instance.

Takes the folders RESULTS/EXPERIMENT/MODEL of both. A run's conclusions: which variants change the goal's metric with
their whole interval, and in which direction, which are broken or over budget, who wins, and which candidates the winner
is not told apart from. Exits with 1 where the conclusions differ.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from excise.reporting.runs import Agreement, Run


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this stage."""
    parser.add_argument("runs", type=Path, nargs=2, help="folders of the two runs, with summary.json and variants/")


def run(arguments: argparse.Namespace) -> None:
    """Read both, compare, write to standard output."""
    import sys

    from excise.errors import ExciseError
    from excise.reporting.runs import agreement

    runs = [read(folder) for folder in arguments.runs]
    found = agreement(*runs)
    sys.stdout.write(told(found, runs) + "\n")
    if not found.holds:
        raise ExciseError("the two runs come to different conclusions")


def read(folder: Path) -> "Run":
    """A finished run.

    Raises:
        ExciseError: a file is missing, or the summary was made from other measurements.
    """
    from excise.reporting.inputs import read_all
    from excise.reporting.runs import Run
    from excise.reporting.summary import read_summary

    names = read_summary(folder / "summary.json").rows
    found = read_all(folder / "summary.json", [folder / "variants" / name / "measurements.json" for name in names], [])
    return Run(found.summary, dict(found.measured))


def told(found: "Agreement", runs: "list[Run]") -> str:
    """A table of both runs, and what agrees, in plain text."""
    from excise.stages.show import change_text

    column = runs[0].summary.target
    rows = [["variant", "first run", "second run", ""]]
    for name, both in found.conclusions.items():
        changes = [change_text(run.summary.rows[name], run.summary.target) for run in runs]
        said = both[0] if both[0] == both[1] else f"DIFFERS: {both[0]} | {both[1]}"
        rows.append([name, *changes, said])
    widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
    lines = [f"change of {column.title}", ""]
    lines += [
        f"{name:<{widths[0]}}  {one:>{widths[1]}}  {two:>{widths[2]}}  {said}".rstrip() for name, one, two, said in rows
    ]
    for number, winner, tied in zip(("first", "second"), found.winners, found.tied, strict=True):
        apart = f"not told apart from {', '.join(tied)}" if tied else "told apart from all others that could"
        lines.append(f"{number} run: {f'{winner} wins, {apart}' if winner else 'nobody wins'}")
    agree = "The conclusions agree." if found.holds else "The conclusions differ."
    return "\n".join([*lines[:-2], "", *lines[-2:], agree])
