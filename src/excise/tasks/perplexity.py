"""Perplexity on one or several texts, one measurement per text, one item per window.

Windows of one text follow each other and resemble each other: the measurement is serial.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from excise.artefacts import read_json
from excise.config.evaluation import listed
from excise.errors import ExciseError
from excise.tasks.generated import Generations
from excise.tasks.measurement import Measurement, Metric

if TYPE_CHECKING:
    from excise.config.experiment import Experiment


def expected(experiment: "Experiment", *, tuning: bool) -> dict[str, tuple[str, ...]]:
    """The texts of the configuration; of what competes, those of the tuning."""
    judging = experiment.tuning if tuning else experiment.evaluation
    return {one.text: ("perplexity",) for one in listed(judging.perplexity)}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options that name this task's files."""
    parser.add_argument("--perplexity", type=Path, nargs="+", default=[], help="perplexity, JSON, one file per text")


def measure(arguments: argparse.Namespace, generated: Generations | None) -> list[Measurement]:  # noqa: ARG001
    """One measurement per text, named as its file of text is."""
    return [read(path) for path in arguments.perplexity]


def read(path: Path) -> Measurement:
    """What excise perplexity wrote.

    Raises:
        ExciseError: it is something else, or lacks the losses of the windows.
    """
    found = read_json(path)
    keys = ("meta", "name", "text", "protocol", "perplexity", "tokens", "windows", "by_window")
    if missing := [key for key in keys if key not in found]:
        raise ExciseError(f"{path}: not written by excise perplexity: it lacks {', '.join(missing)}; make it again")
    values, tokens = (found["by_window"][key] for key in ("nll", "tokens"))
    settings = found["meta"].get("settings", {})
    title = f"perplexity ({found['text']}, {found['protocol']})"
    metric = Metric.of(values, tokens, aggregate="perplexity", direction="lower", title=title)
    return Measurement(
        task="perplexity",
        name=found["name"],
        label=found["text"],
        item="window",
        items=[str(settings.get("skip", 0) + window) for window in range(found["windows"])],
        serial=True,
        metrics={"perplexity": metric},
        settings={"protocol": found["protocol"], "tokens": found["tokens"], **settings},
        provenance=found["meta"],
    )
