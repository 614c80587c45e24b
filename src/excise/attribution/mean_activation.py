"""Mean activation of every neuron, with its sign: over a sample's tokens, then over samples. For mean ablation."""

import functools

from excise.attribution.common import mean_activation, measuring_activation, subtract
from excise.attribution.forward import signed_sum

measuring = functools.partial(measuring_activation, neurons=signed_sum)
neuron_scores = mean_activation
contrast = subtract
SQUARES = ("activation",)
ROWS: tuple[str, ...] = ()
BACKWARD = False
PACKAGES = ("torch", "transformers")
