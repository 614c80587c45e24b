"""What a model card says of what a variant did."""

from collections.abc import Sequence

from excise.reporting.tables import figure
from excise.tasks.measurement import Measured


def results(measured: Sequence[Measured]) -> list[str]:
    """A table in Markdown: a row per variant, a column per compared metric.

    Args:
        measured: the baseline first, then the variant; may be empty.
    """
    if not measured:
        return []
    shown = [
        (one.name, name, metric.title or f"{one.name} {name}")
        for one in measured[0].measurements
        for name, metric in one.metrics.items()
        if metric.compared
    ]
    lines = [f"| variant | {' | '.join(title for *_, title in shown)} |", "|---|" + "---|" * len(shown)]
    for variant in measured:
        metrics = {one.name: one.metrics for one in variant.measurements}
        cells = [figure((metric := metrics[one][name]).figure, metric.unit) for one, name, _ in shown]
        lines.append(f"| {variant.variant} | {' | '.join(cells)} |")
    return [*lines, ""]
