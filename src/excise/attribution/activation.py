"""Mean absolute activation of every neuron, averaged over a sample's tokens, then over samples. Never negative."""

import functools

from excise.attribution.common import mean_activation, measuring_activation, subtract
from excise.attribution.forward import absolute_sum

measuring = functools.partial(measuring_activation, neurons=absolute_sum)
neuron_scores = mean_activation
contrast = subtract
SQUARES = ("activation",)
ROWS: tuple[str, ...] = ()
BACKWARD = False
PACKAGES = ("torch", "transformers")
