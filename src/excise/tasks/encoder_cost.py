"""What an encoder costs, as a measurement: time in rounds in which all encoders took turns, parameters, bytes."""

from collections.abc import Mapping
from typing import Any

from excise.artefacts import Json
from excise.tasks.measurement import Measurement, Metric

NAMES = {
    "1x12": ("query_ms", "ms per query of 12 tokens"),
    "32x64": ("documents_ms", "ms per 32 documents of 64 tokens"),
}
"""Metric and title of each shape that ``retrieval.latency`` times."""


def measure(times: Mapping[str, Json], size: Json, settings: Json) -> Measurement:
    """The cost of one encoder.

    A round is an item: encoders took turns within it, so a busy moment of the machine falls on all of them, and a
    paired comparison takes it out.

    Args:
        times: by shape, ``rounds``: milliseconds of each round.
        size: of ``retrieval.saving.size_info``.
        settings: how it was measured; equal for all encoders that are compared.
    """
    metrics = {}
    rounds = 0
    for shape, each in times.items():
        name, title = NAMES[shape]
        metrics[name] = Metric.of(each["rounds"], direction="lower", title=title)
        rounds = len(each["rounds"])
    shown: dict[str, Any] = {"values": None, "direction": "lower", "compared": False}
    metrics["megabytes"] = Metric(figure=size["weight_bytes"] / 1e6, title="weights, MB", **shown)
    metrics["layer_millions"] = Metric(
        figure=size["encoder_parameters"] / 1e6, title="parameters in layers, millions", **shown
    )
    return Measurement(
        task="encoder-cost",
        name="cost",
        label="cost",
        item="round",
        items=[str(number) for number in range(rounds)],
        metrics=metrics,
        settings=settings,
        details={"size": size},
    )
