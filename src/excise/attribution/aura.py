"""AurA's expertise: how well a neuron's largest activation tells the behaviour from ordinary text, as an AUROC.

Suau et al. 2024, "Whispering Experts" (arXiv 2407.12824). A sample is summarised by the maximum of the neuron's
activation over its tokens; a neuron's expertise is the area under the ROC curve of these maxima, behaviour against
general samples, ties counted half. 0.5 means blind, 1 means larger on every sample of the behaviour.
"""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import nn

from excise.attribution import Options, Values
from excise.attribution.batches import Batch
from excise.attribution.forward import collect
from excise.attribution.lxt_patch import assert_unpatched

SQUARES: tuple[str, ...] = ()
ROWS = ("maximum",)
BACKWARD = False
PACKAGES = ("torch", "transformers")


@contextlib.contextmanager
def measuring(model: nn.Module, options: Options) -> Iterator[Callable[[Batch], Values]]:  # noqa: ARG001
    """See ``excise.attribution``; values: ``maximum``, kept per sample."""
    assert_unpatched(model)

    def measure(batch: Batch) -> Values:
        maximum = collect(model, batch, neurons=lambda values: values.amax(1), fill=-torch.inf)["activation"]
        # A maximum is one of the activations, not a sum: float32 holds it exactly unless the model is wider.
        return {"maximum": maximum if model.dtype == torch.float64 else maximum.float()}

    yield measure


def neuron_scores(means: Values, model_folder: Path) -> torch.Tensor:  # noqa: ARG001
    """Mean over samples of the maximum: what one corpus alone can say. The AUROC needs two: ``contrast``."""
    return means["maximum"]


def contrast(general: Values, behaviour: Values) -> tuple[torch.Tensor, torch.Tensor]:
    """(0.5, AUROC): their difference is negative where a neuron is an expert of the behaviour."""
    expertise = auroc(behaviour["maximum_rows"], general["maximum_rows"])
    return torch.full_like(expertise, 0.5), expertise


def auroc(positive: torch.Tensor, negative: torch.Tensor) -> torch.Tensor:
    """Area under the ROC curve of each column: the share of pairs in which the positive is larger, ties half.

    Args:
        positive: ``[samples, ...]``.
        negative: ``[other samples, ...]``, the same trailing dimensions.

    Returns:
        Float64 of the trailing shape.
    """
    wins = torch.zeros(positive.shape[1:], dtype=torch.float64)
    for sample in positive:  # a row at a time: pairs x neurons would not fit
        wins += (sample > negative).sum(0, dtype=torch.float64) + 0.5 * (sample == negative).sum(0, dtype=torch.float64)
    return wins / (len(positive) * len(negative))
