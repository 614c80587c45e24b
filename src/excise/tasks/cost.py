"""What a variant costs to keep and to run, measured beside the unpruned model; one item per round.

Tokens per second are only shown: what is compared is how many times as fast as the unpruned model it was in the same
round, which for the unpruned model is the noise about 1.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from excise.artefacts import read_json
from excise.errors import ExciseError
from excise.tasks.generated import Generations
from excise.tasks.measurement import Measurement, Metric

if TYPE_CHECKING:
    from excise.config.experiment import Experiment

METRICS = ("parameters", "nonzero", "bytes", "prefill", "prefill_ratio", "decode", "decode_ratio")


def expected(experiment: "Experiment", *, tuning: bool) -> dict[str, tuple[str, ...]]:
    """Where it is to be measured, but not of what competes."""
    return {} if experiment.evaluation.cost is None or tuning else {"cost": METRICS}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options that name this task's files."""
    parser.add_argument("--cost", type=Path, help="weights, bytes and times, JSON (default: not measured)")


def measure(arguments: argparse.Namespace, generated: Generations | None) -> list[Measurement]:  # noqa: ARG001
    """One measurement."""
    return [] if arguments.cost is None else [read(arguments.cost)]


def read(path: Path) -> Measurement:
    """What excise cost wrote.

    Raises:
        ExciseError: it is something else.
    """
    found = read_json(path)
    if missing := [key for key in ("meta", "parameters", "nonzero", "bytes", "seconds") if key not in found]:
        raise ExciseError(f"{path}: not written by excise cost: it lacks {', '.join(missing)}; make it again")
    settings = found["meta"]["settings"]
    sizes = {"parameters": "million parameters", "nonzero": "million weights not zero", "bytes": "MB on disk"}
    metrics = {
        key: Metric(figure=found[key] / 1e6, values=None, direction="lower", compared=False, title=title)
        for key, title in sizes.items()
    }
    for part, seconds in found["seconds"].items():
        own, unpruned = (np.array(seconds[name]) for name in ("variant", "unpruned"))
        metrics[part] = Metric.of(
            settings[part] / own, direction="higher", compared=False, title=f"{part}, tokens per second"
        )
        metrics[f"{part}_ratio"] = Metric.of(
            unpruned / own, direction="higher", title=f"{part}, times as fast as unpruned"
        )
    return Measurement(
        task="cost",
        name="cost",
        label="cost",
        item="round",
        items=[str(number) for number in range(settings["rounds"])],
        metrics=metrics,
        settings=settings,
        provenance=found["meta"],
    )
