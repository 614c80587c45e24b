"""AttnLRP: layer-wise relevance of every neuron (Achtibat et al. 2024), as SparC3 averages it.

Sign: positive where the neuron speaks for the target's logits. Unit: logits.
"""

import functools

from excise.attribution.common import mean_relevance, measuring_relevance, subtract

measuring = functools.partial(measuring_relevance, rule="attnlrp")
neuron_scores = mean_relevance
contrast = subtract
SQUARES = ("relevance",)
ROWS: tuple[str, ...] = ()
BACKWARD = True
PACKAGES = ("torch", "transformers", "lxt")
