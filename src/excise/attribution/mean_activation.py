"""Mean activation of every channel, with its sign: over a sample's tokens, then over samples. For mean ablation.

Measured and kept per channel, whatever the unit: a head is ablated to the mean of each of its channels.
"""

from contextlib import AbstractContextManager
from typing import Any

from excise.attribution import Measure, Measured, Options, subtract
from excise.attribution.means import mean_activation


def measuring(model: Any, options: Options) -> AbstractContextManager[Measure]:
    """See ``excise.attribution``; values: ``activation [samples, layers, channels]``."""
    from excise.attribution.common import measuring_activation
    from excise.attribution.forward import signed_sum

    return measuring_activation(model, options, signed_sum, per_channel=True)


METHOD = Measured(
    name="mean-activation",
    label="mean activation, to ablate to",
    needs="forward",
    measuring=measuring,
    scores=mean_activation,
    contrast=subtract,
    squares=("activation",),
    ranks=False,
)
