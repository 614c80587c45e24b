"""CP-LRP: relevance with softmax and gates taken as constants (Ali et al. 2022). It conserves relevance exactly.

Sign: positive where the unit raises the objective's logits. Unit of measurement: logits.
"""

from contextlib import AbstractContextManager
from typing import Any

from excise.attribution import Measure, Measured, Options, subtract
from excise.attribution.means import mean_relevance


def measuring(model: Any, options: Options) -> AbstractContextManager[Measure]:
    """See ``excise.attribution``; values: ``relevance``."""
    from excise.attribution.common import measuring_relevance

    return measuring_relevance(model, options, rule="cp")


METHOD = Measured(
    name="lrp-cp",
    label="relevance by CP-LRP, which holds attention fixed",
    needs="backward",
    packages=("torch", "transformers", "lxt"),
    measuring=measuring,
    scores=mean_relevance,
    contrast=subtract,
    squares=("relevance",),
)
