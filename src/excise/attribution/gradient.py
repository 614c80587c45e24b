"""Gradient x activation of every neuron: LRP's backward pass without its rules.

Sign: positive where a larger activation raises the target's logits further. Unit: logits.
"""

import functools

from excise.attribution.common import mean_relevance, measuring_relevance, subtract

measuring = functools.partial(measuring_relevance, rule=None)
neuron_scores = mean_relevance
contrast = subtract
SQUARES = ("relevance",)
ROWS: tuple[str, ...] = ()
BACKWARD = True
PACKAGES = ("torch", "transformers")
