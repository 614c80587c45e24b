"""Read what was measured of one variant into one file: a value per item for every task.

Give the files that other stages made: scores and fluency of generations, perplexity on one or several texts, tasks of
the harness, cost. All must be about the same model and unit list. Degeneration is measured wherever there are
generations. Two scorers never share a figure.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from excise.artefacts import Json
    from excise.tasks.measurement import About, Measurement


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this stage, and those of every task."""
    from excise.tasks.registry import TASKS

    parser.add_argument("--variant", required=True, help="what to call the variant in tables")
    parser.add_argument("--generations", type=Path, help="generations, JSONL (default: none were made)")
    parser.add_argument("--units", type=Path, help="unit list that the variant was made with (default: none was)")
    parser.add_argument(
        "--finding",
        type=int,
        default=1,
        help="which finding the unit list is, where it was found several times (default 1); later ones cannot win",
    )
    for task in TASKS:
        task.add_arguments(parser)
    parser.add_argument("--output", type=Path, required=True, help="measurements, JSON")


def run(arguments: argparse.Namespace) -> None:
    """Read, check, write."""
    from excise.artefacts import sha256_file
    from excise.errors import ExciseError
    from excise.provenance import provenance
    from excise.tasks.files import write_measurements
    from excise.tasks.generated import read_generations
    from excise.tasks.measurement import Measured
    from excise.tasks.registry import TASKS

    generated = read_generations(arguments.generations) if arguments.generations else None
    found: list[Measurement] = [one for task in TASKS for one in task.measure(arguments, generated)]
    if not found:
        raise ExciseError("nothing to evaluate: give generations and scores, perplexity, capability or cost")
    model, units = _made_with(found)
    meta = provenance(
        "evaluate",
        {name: [sha256_file(path) for path in paths] for name, paths in _files(arguments)},
        model=model,
        selection=units,
    )
    about = _about(arguments.units, model, units, arguments.finding)
    write_measurements(
        arguments.output, Measured(variant=arguments.variant, measurements=found, about=about, meta=meta)
    )


def _files(arguments: argparse.Namespace) -> "Iterator[tuple[str, list[Path]]]":
    """The files that were given, by option."""
    for name, value in sorted(vars(arguments).items()):
        paths = value if isinstance(value, list) else [value]
        if name not in ("output", "log") and paths and all(isinstance(path, Path) for path in paths):
            yield name, paths


def _made_with(found: "list[Measurement]") -> "tuple[Json | None, Json | None]":
    """Model and unit list of all measurements.

    Raises:
        ExciseError: they differ; names the measurements.
    """
    from excise.errors import ExciseError

    first = found[0]
    for one in found:
        for key, what in (("model", "model"), ("selection", "unit list")):
            if one.provenance.get(key) != first.provenance.get(key):
                raise ExciseError(
                    f"the {what} of {one.name!r} ({one.task}) is not that of {first.name!r} ({first.task}): "
                    f"{one.provenance.get(key)} against {first.provenance.get(key)}"
                )
    return first.provenance.get("model"), first.provenance.get("selection")


def _about(path: Path | None, model: "Json | None", units: "Json | None", finding: int) -> "About":
    """What the variant is, from the unit list that it was made with or the folder of its model.

    Raises:
        ExciseError: it was made with another unit list than the one given, or with one that is not given.
    """
    from excise.artefacts import sha256_file
    from excise.edits.unit_list import read_units
    from excise.errors import ExciseError
    from excise.tasks.measurement import About

    if (units or {}).get("sha256") != (None if path is None else sha256_file(path)):
        said = "no unit list" if units is None else f"the unit list with sha256 {units['sha256'][:12]}"
        raise ExciseError(f"--units {path}: the variant was measured with {said}; give that one")
    if path is None:
        made = (model or {}).get("variant")
        if made is not None:
            return About(**made)
        return About(kind="candidate" if (model or {}).get("base") else "baseline")
    chosen = read_units(path)
    count, total = len(chosen["rows"]), chosen["layers"] * chosen["units_per_layer"]
    return About(
        kind="control" if chosen.get("control") else "candidate" if finding == 1 else "replicate",
        method=chosen["method"],
        series=chosen["name"],
        unit=chosen["unit"],
        size=count,
        share=count / total,
        scale="per row" if chosen["scale"] is None else chosen["scale"],
        ablation=chosen["ablation"],
        finding=finding,
    )
