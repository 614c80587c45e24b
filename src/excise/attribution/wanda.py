"""Wanda's weight score, abs(weight) x norm of the input (Sun et al. 2023), summed over the weights of each unit.

The statistics are squared input norms only: of the MLP input (for up and gate rows) and of the channels (for the output
projections' columns), as means over the tokens of each sample: Wanda's calibration samples are of one length, where
that is a constant factor; reference sets of different lengths could not be subtracted without it. With ``n_j`` the root
of the mean over samples, the score of neuron ``i`` is

    score_i = sum_j (abs(up_ij) + abs(gate_ij)) n_j + n_i sum_k abs(down_ki)      (never negative)

and that of a head the sum over its channels ``i`` of ``n_i sum_k abs(output_ki)``: its output weights only, for keys
and values may be shared by several heads. Larger units are the sum of their neurons and heads.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from excise.artefacts import Array
from excise.attribution import Arrays, Measure, Measured, Options, subtract
from excise.models.units import Axis


@contextlib.contextmanager
def measuring(model: Any, options: Options) -> Iterator[Measure]:
    """See ``excise.attribution``; mean squares over tokens: ``activation [samples, layers, channels]``, ``input``."""
    from excise.attribution.forward import collect, per_token, squared_norm
    from excise.models.unpatched import assert_unpatched

    assert_unpatched(model)
    inputs = squared_norm if options.unit in ("neuron", "mlp", "layer") else None
    yield lambda batch: per_token(collect(model, batch, unit=options.unit, inputs=inputs, channels=squared_norm), batch)


def scores(means: Arrays, model_folder: Path, units: Axis) -> Array:
    """Wanda scores of the weights of each unit, summed; weights are read layer by layer from the model folder."""
    import torch

    from excise.attribution.weights import channel_weights

    found = []
    for layer, sites in enumerate(channel_weights(model_folder, units)):
        norms = torch.from_numpy(means["activation"][layer]).sqrt()
        channels, start = [], 0
        for site in sites:
            incoming = sum(row.abs().double() @ torch.from_numpy(means["input"][layer]).sqrt() for row in site.rows)
            norm = norms[start : start + site.columns.shape[1]]
            channels.append(incoming + site.columns.abs().sum(0, dtype=torch.float64) * norm)
            start += len(norm)
        found.append(units.fold(torch.cat(channels)))
    return torch.stack(found).numpy()


METHOD = Measured(
    name="wanda",
    label="size of the weights times norm of their inputs",
    needs="forward",
    measuring=measuring,
    scores=scores,
    contrast=subtract,
)
