"""What a variant can do: tasks of lm-evaluation-harness, one measurement per task or group, one item per document."""

import argparse
from math import isclose
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from excise.artefacts import Json, read_json
from excise.errors import ExciseError
from excise.tasks.generated import Generations
from excise.tasks.measurement import Measurement, Metric

if TYPE_CHECKING:
    from excise.config.experiment import Experiment


def expected(experiment: "Experiment", *, tuning: bool) -> dict[str, tuple[str, ...]]:  # noqa: ARG001
    """Which metrics a task has, the harness decides."""
    return {}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options that name this task's files."""
    parser.add_argument("--capability", type=Path, help="tasks of the harness, JSON (default: not measured)")


def measure(arguments: argparse.Namespace, generated: Generations | None) -> list[Measurement]:  # noqa: ARG001
    """One measurement for each task or group that was asked for."""
    return [] if arguments.capability is None else read(arguments.capability)


def read(path: Path) -> list[Measurement]:
    """What excise capability wrote.

    Raises:
        ExciseError: it is something else.
    """
    found = read_json(path)
    if missing := [key for key in ("meta", "shown", "tasks", "groups") if key not in found]:
        raise ExciseError(f"{path}: not written by excise capability: it lacks {', '.join(missing)}; make it again")
    return [_measurement(name, found) for name in found["shown"]]


def _measurement(name: str, found: Json) -> Measurement:
    """A task, or a group with the documents of its tasks where its figure is their mean."""
    result = found["groups"].get(name) or found["tasks"][name]
    leaves: list[str] = result.get("tasks", [name])
    items = [f"{leaf}/{index}" for leaf in leaves for index in range(found["tasks"][leaf]["documents"])]
    shots = "mixed shots" if result["num_fewshot"] is None else f"{result['num_fewshot']}-shot"
    metrics = {}
    for key, figure in result["metrics"].items():
        short = key.removesuffix(",none")
        parts = [found["tasks"][leaf]["metrics"].get(key, {}) for leaf in leaves]
        metrics[short] = _metric(figure, parts, title=f"{name} {short}, {shots}")
    asked = {leaf: {key: value for key, value in found["tasks"][leaf].items() if key != "metrics"} for leaf in leaves}
    return Measurement(
        task="capability",
        name=name,
        label=f"{name}, {shots}",
        item="document",
        items=items,
        metrics=metrics,
        settings={
            "asked": asked,
            "harness": found["meta"].get("settings"),
            "versions": found["meta"].get("versions"),
        },
        details={
            "documents": result["documents"],
            "stderr": {metric.removesuffix(",none"): one["stderr"] for metric, one in result["metrics"].items()},
        },
        provenance=found["meta"],
    )


def _metric(figure: Json, leaves: list[Any], *, title: str) -> Metric:
    values = [value for leaf in leaves for value in leaf.get("per_document", ())]
    complete = all("per_document" in leaf for leaf in leaves)
    direction = {True: "higher", False: "lower", None: None}[figure["higher_is_better"]]
    if complete and isclose(fmean(values), figure["value"], abs_tol=1e-9):
        return Metric.of(values, direction=direction, title=title)
    return Metric(figure=figure["value"], values=None, direction=direction, title=title)
