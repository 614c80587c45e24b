"""Add the shards of a statistics file up: exactly, in any order, to the bytes of an unsharded run."""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this stage."""
    parser.add_argument("shards", type=Path, nargs="+", help="statistics of all shards of one reference set")
    parser.add_argument("--output", type=Path, required=True, help="statistics, safetensors")


def run(arguments: argparse.Namespace) -> None:
    """Read, add, write."""
    from excise.errors import ExciseError
    from excise.statistics import Statistics

    total = Statistics.read(arguments.shards[0])
    for path in arguments.shards[1:]:
        try:
            total.merge(Statistics.read(path))
        except ExciseError as error:
            raise ExciseError(f"{path} cannot be added to the shards before it: {error}") from error
    total.totals()
    total.write(arguments.output)
