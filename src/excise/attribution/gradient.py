"""Gradient x activation of every unit: LRP's backward pass without its rules.

Sign: positive where a larger activation raises the objective's logits further. Unit of measurement: logits.
"""

from contextlib import AbstractContextManager
from typing import Any

from excise.attribution import Measure, Measured, Options, subtract
from excise.attribution.means import mean_relevance


def measuring(model: Any, options: Options) -> AbstractContextManager[Measure]:
    """See ``excise.attribution``; values: ``relevance``."""
    from excise.attribution.common import measuring_relevance

    return measuring_relevance(model, options, rule=None)


METHOD = Measured(
    name="gradient",
    label="activation times gradient",
    needs="backward",
    measuring=measuring,
    scores=mean_relevance,
    contrast=subtract,
    squares=("relevance",),
)
