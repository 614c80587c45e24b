"""AurA's expertise: how well a neuron's largest activation separates target from ordinary samples, as an AUROC.

Suau et al. 2024, "Whispering Experts" (arXiv 2407.12824). A sample is summarised by the maximum of the neuron's
activation over its tokens; a neuron's expertise is the area under the ROC curve of these maxima, target against retain
samples, ties counted half. 0.5 means blind, 1 means larger on every target sample.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from excise.artefacts import Array
from excise.attribution import Arrays, Measure, Measured, Options, Values
from excise.models.units import Axis

if TYPE_CHECKING:
    from excise.attribution.batches import Batch


@contextlib.contextmanager
def measuring(model: Any, options: Options) -> Iterator[Measure]:  # noqa: ARG001
    """See ``excise.attribution``; values: ``maximum``, kept per sample."""
    import torch

    from excise.attribution.forward import collect
    from excise.models.unpatched import assert_unpatched

    assert_unpatched(model)

    def measure(batch: "Batch") -> Values:
        maximum = collect(model, batch, channels=lambda values: values.amax(1), fill=-torch.inf)["activation"]
        # A maximum is one of the activations, not a sum: float32 holds it exactly unless the model is wider.
        return {"maximum": maximum if model.dtype == torch.float64 else maximum.float()}

    yield measure


def scores(means: Arrays, model_folder: Path, units: Axis) -> Array:  # noqa: ARG001
    """Mean over samples of the maximum: what one set alone can say. The AUROC needs two: ``contrast``."""
    return means["maximum"]


def contrast(retain: Arrays, target: Arrays) -> tuple[Array, Array]:
    """(0.5, AUROC): their difference is negative where a neuron is an expert of the target."""
    import numpy as np

    expertise = auroc(target["maximum_rows"], retain["maximum_rows"])
    return np.full_like(expertise, 0.5), expertise


def auroc(positive: Array, negative: Array) -> Array:
    """Area under the ROC curve of each column: the share of pairs in which the positive is larger, ties half.

    Args:
        positive: ``[samples, ...]``.
        negative: ``[other samples, ...]``, the same trailing dimensions.

    Returns:
        Float64 of the trailing shape.
    """
    import numpy as np

    wins = np.zeros(positive.shape[1:])
    for sample in positive:  # one row at a time: pairs x neurons would not fit
        wins += (sample > negative).sum(0) + 0.5 * (sample == negative).sum(0)
    return wins / (len(positive) * len(negative))


METHOD = Measured(
    name="aura",
    label="how well the activation alone separates target from other text",
    needs="forward",
    units=("neuron",),
    measuring=measuring,
    scores=scores,
    contrast=contrast,
    rows=("maximum",),
)
