"""Control: the norm of each neuron's weights, so that the smallest are removed first (classical magnitude pruning)."""

from pathlib import Path

import torch

from excise.attribution.weights import neuron_weights


def draw(model_folder: Path, seed: int) -> torch.Tensor:  # noqa: ARG001 (nothing is drawn)
    """Euclidean norm over all input rows and the output column of each neuron, ``[layers, neurons]`` float64."""
    norms = []
    for rows, columns in neuron_weights(model_folder):
        squares = sum(row.double().square().sum(1) for row in rows) + columns.double().square().sum(0)
        norms.append(squares.sqrt())
    return torch.stack(norms)
