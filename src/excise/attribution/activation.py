"""Mean absolute activation of every unit, averaged over a sample's tokens, then over samples. Never negative.

That of a unit with several channels is their sum.
"""

from contextlib import AbstractContextManager
from typing import Any

from excise.attribution import Measure, Measured, Options, subtract
from excise.attribution.means import mean_activation


def measuring(model: Any, options: Options) -> AbstractContextManager[Measure]:
    """See ``excise.attribution``; values: ``activation``."""
    from excise.attribution.common import measuring_activation
    from excise.attribution.forward import absolute_sum

    return measuring_activation(model, options, absolute_sum)


METHOD = Measured(
    name="activation",
    label="size of the activation",
    needs="forward",
    measuring=measuring,
    scores=mean_activation,
    contrast=subtract,
    squares=("activation",),
)
