"""Mean activation of every neuron, with its sign: over a sample's tokens, then over samples. For mean ablation."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import nn

from excise.attribution import Options, Values
from excise.attribution.batches import Batch
from excise.attribution.common import subtract
from excise.attribution.forward import collect, per_token, signed_sum
from excise.attribution.lxt_patch import assert_unpatched

contrast = subtract
SQUARES = ("activation",)
ROWS: tuple[str, ...] = ()
BACKWARD = False
PACKAGES = ("torch", "transformers")


@contextlib.contextmanager
def measuring(model: nn.Module, options: Options) -> Iterator[Callable[[Batch], Values]]:  # noqa: ARG001
    """See ``excise.attribution``; values: ``activation``."""
    assert_unpatched(model)

    def measure(batch: Batch) -> Values:
        return per_token(collect(model, batch, neurons=signed_sum), batch)

    yield measure


def neuron_scores(means: Values, model_folder: Path) -> torch.Tensor:  # noqa: ARG001
    """The mean itself."""
    return means["activation"]
