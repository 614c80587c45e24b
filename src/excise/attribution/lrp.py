"""AttnLRP: layer-wise relevance of every unit (Achtibat et al. 2024), as SparC3 averages it.

Sign: positive where the unit raises the objective's logits. Unit of measurement: logits.
"""

from contextlib import AbstractContextManager
from typing import Any

from excise.attribution import Measure, Measured, Options, subtract
from excise.attribution.means import mean_relevance


def measuring(model: Any, options: Options) -> AbstractContextManager[Measure]:
    """See ``excise.attribution``; values: ``relevance``."""
    from excise.attribution.common import measuring_relevance

    return measuring_relevance(model, options, rule="attnlrp")


METHOD = Measured(
    name="lrp",
    label="relevance by AttnLRP, which splits the model's output among its units",
    needs="backward",
    packages=("torch", "transformers", "lxt"),
    measuring=measuring,
    scores=mean_relevance,
    contrast=subtract,
    squares=("relevance",),
)
