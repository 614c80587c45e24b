"""How plausible a variant's generations are to the unpruned model.

A broken model never swears: text that the unpruned model would never have written is not a better answer.
"""

import argparse
import math
from pathlib import Path
from typing import TYPE_CHECKING

from excise.errors import ExciseError
from excise.tasks.generated import Generations
from excise.tasks.measurement import Measurement, Metric

if TYPE_CHECKING:
    from excise.config.experiment import Experiment


def expected(experiment: "Experiment", *, tuning: bool) -> dict[str, tuple[str, ...]]:  # noqa: ARG001
    """Wherever there are prompts."""
    return {} if experiment.prompts is None else {"fluency": ("perplexity",)}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options that name this task's files."""
    parser.add_argument("--fluency", type=Path, help="fluency of the generations, JSONL (default: not measured)")


def measure(arguments: argparse.Namespace, generated: Generations | None) -> list[Measurement]:
    """Perplexity of the generations, given their prompts; one item per prompt."""
    if arguments.fluency is None:
        return []
    if generated is None:
        raise ExciseError("--fluency needs --generations, which it is about")
    meta, rows = generated.beside(arguments.fluency, ("nll", "tokens"))
    groups = [[row for index in group if (row := rows[index])] for group in generated.prompts]
    metric = Metric.of(
        [math.fsum(row["nll"] for row in group) for group in groups],
        [sum(row["tokens"] for row in group) for group in groups],
        aggregate="perplexity",
        title="perplexity of the generations under the unpruned model",
    )
    count = meta.get("settings", {}).get("num_generations")
    read = generated.number if count is None else min(count, generated.number)
    return [
        Measurement(
            task="fluency",
            name="fluency",
            label="fluency",
            item="prompt",
            items=generated.items,
            metrics={"perplexity": metric},
            settings={"num_generations": read},
            provenance=generated.meta,
        )
    ]
