"""Is it still language? Repetition and emptiness of generations.

These figures are no goal and never win; they are the veto wherever text is generated.
"""

import argparse
from typing import TYPE_CHECKING

from excise.evaluation.degeneration import RUR_LIMIT, distinct, response_uniqueness
from excise.tasks.generated import Generations
from excise.tasks.measurement import Measurement, Metric

if TYPE_CHECKING:
    from excise.config.experiment import Experiment

METRICS = (
    *("distinct_1", "distinct_2", "distinct_3", "mean_distinct_1", "mean_distinct_2", "mean_distinct_3"),
    *("rur", "repetitive_share", "empty_share", "mean_tokens"),
)


def expected(experiment: "Experiment", *, tuning: bool) -> dict[str, tuple[str, ...]]:  # noqa: ARG001
    """Wherever there are prompts."""
    return {} if experiment.prompts is None else {"language": METRICS}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """It needs the generations alone."""


def measure(arguments: argparse.Namespace, generated: Generations | None) -> list[Measurement]:  # noqa: ARG001
    """Repetition, emptiness and length; one item per prompt.

    ``distinct_N`` is over all tokens together, so no prompt has a value of it. Generations without tokens have no RUR,
    those with fewer than N tokens no ``mean_distinct_N``.
    """
    if generated is None:
        return []
    tokens = [row["completion_ids"] for row in generated.rows]
    uniqueness = [response_uniqueness(ids) for ids in tokens]

    def mean(values: list[float | None], unit: str = "number") -> Metric:
        groups = [[value for index in group if (value := values[index]) is not None] for group in generated.prompts]
        sums, counts = [sum(group) for group in groups], [len(group) for group in groups]
        return Metric.of(sums, counts, aggregate="ratio", unit=unit, compared=False)

    metrics = {f"distinct_{n}": Metric(figure=distinct(tokens, n), values=None, compared=False) for n in (1, 2, 3)}
    metrics |= {f"mean_distinct_{n}": mean([distinct([ids], n) for ids in tokens]) for n in (1, 2, 3)}
    metrics["rur"] = mean(uniqueness)
    metrics["repetitive_share"] = mean(
        [None if value is None else float(value <= RUR_LIMIT) for value in uniqueness], unit="share"
    )
    metrics["empty_share"] = mean([float(not row["completion"].strip()) for row in generated.rows], unit="share")
    metrics["mean_tokens"] = mean([float(len(ids)) for ids in tokens])
    return [
        Measurement(
            task="degeneration",
            name="language",
            label="language",
            item="prompt",
            items=generated.items,
            metrics=metrics,
            provenance=generated.meta,
        )
    ]
