"""Copy the unit list of the candidate that wins the evaluation, whichever it is.

So controls can be matched to the winner, and the winner be exported, without naming it beforehand. Where no candidate
wins, the one that comes closest takes its place: of those whose language is intact, else of all, the one that gains
most.
The copy has the same bytes, so by its digest all that was measured with the list belongs to it.
"""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this stage."""
    parser.add_argument("--summary", type=Path, required=True, help="comparison of the candidates, JSON")
    parser.add_argument("--units", type=Path, nargs="+", required=True, help="their unit lists")
    parser.add_argument("--output", type=Path, required=True, help="unit list of the winner, JSON")


def run(arguments: argparse.Namespace) -> None:
    """Read the comparison, find the list, copy it."""
    import logging

    from excise.artefacts import replacing, sha256_file
    from excise.errors import ExciseError
    from excise.reporting.summary import read_summary
    from excise.reporting.verdict import leading

    row = leading(read_summary(arguments.summary))
    if row is None:
        raise ExciseError(f"{arguments.summary}: there is no candidate in it")
    lists = {sha256_file(path): path for path in arguments.units}
    if row.units not in lists:
        raise ExciseError(f"{arguments.summary}: the unit list of {row.variant} is not among those given")
    with replacing(arguments.output) as file:
        file.write(lists[row.units].read_bytes())
    logging.getLogger(__name__).info("%s: %s", arguments.output.stem, row.variant)
