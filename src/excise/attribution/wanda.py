"""Wanda's weight score, abs(weight) x norm of the input (Sun et al. 2023), summed over the weights of each neuron.

The statistics are squared input norms only: of the MLP input (for up and gate rows) and of the neuron activations
(for the output projection's columns), as means over the tokens of each sample: Wanda's calibration samples are of one
length, where that is a constant factor; corpora of different lengths could not be subtracted without it. With ``n_j``
the root of the mean over samples,

    score_i = sum_j (abs(up_ij) + abs(gate_ij)) n_j + n_i sum_k abs(down_ki)      (never negative)
"""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import nn

from excise.attribution import Options, Values
from excise.attribution.batches import Batch
from excise.attribution.common import subtract
from excise.attribution.forward import collect, per_token, squared_norm
from excise.attribution.lxt_patch import assert_unpatched
from excise.attribution.weights import neuron_weights

contrast = subtract
SQUARES: tuple[str, ...] = ()
ROWS: tuple[str, ...] = ()
BACKWARD = False
PACKAGES = ("torch", "transformers")


@contextlib.contextmanager
def measuring(model: nn.Module, options: Options) -> Iterator[Callable[[Batch], Values]]:  # noqa: ARG001
    """See ``excise.attribution``; values: ``input`` and ``activation``, mean squares over tokens."""
    assert_unpatched(model)
    yield lambda batch: per_token(collect(model, batch, inputs=squared_norm, neurons=squared_norm), batch)


def neuron_scores(means: Values, model_folder: Path) -> torch.Tensor:
    """Wanda scores of the weights of each neuron, summed; weights are read layer by layer from the model folder."""
    scores = []
    for layer, (rows, columns) in enumerate(neuron_weights(model_folder)):
        incoming = sum(row.abs().double() @ means["input"][layer].sqrt() for row in rows)
        scores.append(incoming + columns.abs().sum(0, dtype=torch.float64) * means["activation"][layer].sqrt())
    return torch.stack(scores)
