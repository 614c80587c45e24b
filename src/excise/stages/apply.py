"""Prune a model from a unit list and save it as a Hugging Face folder.

The unit list is all that is needed beside the original weights; weights with another fingerprint are refused.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from excise.tasks.measurement import Measured


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this stage."""
    parser.add_argument("units", type=Path, help="unit list, JSON")
    parser.add_argument("model", type=Path, help="folder of the unpruned model")
    parser.add_argument(
        "--measurements",
        type=Path,
        nargs="*",
        default=[],
        help="for the model card: the baseline's first, then variants', of which it tells those made with this list",
    )
    parser.add_argument("--output", type=Path, required=True, help="folder to make")


def run(arguments: argparse.Namespace) -> None:
    """Check that list and model fit, then export."""
    import logging

    from excise.edits.export import export
    from excise.edits.unit_list import check_fits, counted, read_units
    from excise.models.loading import identity
    from excise.reporting.card import results
    from excise.tasks.files import read_measurements
    from excise.tasks.measurement import check_comparable

    units = read_units(arguments.units)
    base = identity(arguments.model, "as on disk")
    check_fits(units, base["fingerprint"], where=str(arguments.units))
    measured = made_with(arguments.units, [read_measurements(path) for path in arguments.measurements])
    for one in measured[1:]:
        check_comparable(measured[0], one)
    judged = measured[0].meta["model"]["dtype"] if measured else "float32"
    export(arguments.model, units, arguments.output, base=base, judged=judged, results=results(measured))
    logging.getLogger(__name__).info("%s: %s of %s", arguments.output, counted(units), base["id"])


def made_with(units: Path, measured: "list[Measured]") -> "list[Measured]":
    """The measurements of the baseline, which come first, and those of what was made with a unit list.

    Raises:
        ExciseError: none was made with it.
    """
    from excise.artefacts import sha256_file
    from excise.errors import ExciseError

    digest = sha256_file(units)
    found = [one for one in measured if (one.meta.get("selection") or {}).get("sha256") == digest]
    if measured and not found:
        raise ExciseError(f"{units}: none of the measurements given is of a variant made with this list")
    return [*measured[:1], *found]
