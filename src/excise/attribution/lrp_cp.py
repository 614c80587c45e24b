"""CP-LRP: relevance with softmax and gates taken as constants (Ali et al. 2022). It conserves relevance exactly.

Sign: positive where the neuron speaks for the target's logits. Unit: logits.
"""

import functools

from excise.attribution.common import mean_relevance, measuring_relevance, subtract

measuring = functools.partial(measuring_relevance, rule="cp")
neuron_scores = mean_relevance
contrast = subtract
SQUARES = ("relevance",)
ROWS: tuple[str, ...] = ()
BACKWARD = True
PACKAGES = ("torch", "transformers", "lxt")
