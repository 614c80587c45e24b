"""Tasks of pairs, such as indirect-object identification: logit difference and rightness, one item per pair."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from excise.artefacts import read_json
from excise.errors import ExciseError
from excise.tasks.generated import Generations
from excise.tasks.measurement import Measurement, Metric

if TYPE_CHECKING:
    from excise.config.experiment import Experiment


def expected(experiment: "Experiment", *, tuning: bool) -> dict[str, tuple[str, ...]]:
    """The tasks of circuits, but not of what competes."""
    return {} if tuning else dict.fromkeys(experiment.circuits, ("logit_difference", "accuracy"))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options that name this task's files."""
    parser.add_argument("--pairs", type=Path, nargs="+", default=[], help="answers of excise answer, one file per task")


def measure(arguments: argparse.Namespace, generated: Generations | None) -> list[Measurement]:  # noqa: ARG001
    """One measurement per task, named as the task is."""
    return [read(path) for path in arguments.pairs]


def read(path: Path) -> Measurement:
    """What excise answer wrote.

    Raises:
        ExciseError: it is something else.
    """
    found = read_json(path)
    if missing := [key for key in ("meta", "name", "ids", "logit_difference") if key not in found]:
        raise ExciseError(f"{path}: not written by excise answer: it lacks {', '.join(missing)}")
    name, values = found["name"], found["logit_difference"]
    right = [float(value > 0) for value in values]
    return Measurement(
        task="pairs",
        name=name,
        label=name,
        item="pair",
        items=found["ids"],
        metrics={
            "logit_difference": Metric.of(values, direction="higher", title=f"{name}: logit difference"),
            "accuracy": Metric.of(right, direction="higher", unit="share", title=f"{name}: right"),
        },
        settings=found["meta"].get("settings", {}),
        provenance=found["meta"],
    )
