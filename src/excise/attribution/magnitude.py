"""Control: the norm of each unit's weights, so that the smallest are removed first (classical magnitude pruning)."""

from pathlib import Path

from excise.artefacts import Array
from excise.attribution import Control
from excise.models.units import Axis


def draw(model_folder: Path, seed: int, units: Axis) -> Array:  # noqa: ARG001 (nothing is drawn)
    """Euclidean norm over the weights of each unit, ``[layers, units]`` float64.

    Weights of a neuron: its rows of the input projections and its column of the output projection; of a head: its
    columns of the attention's output projection, for keys and values may be shared. Those of larger units are the sum.
    """
    import torch

    from excise.attribution.weights import channel_weights

    squares = []
    for layer in channel_weights(model_folder, units):
        channels = [
            sum(row.double().square().sum(1) for row in site.rows) + site.columns.double().square().sum(0)
            for site in layer
        ]
        squares.append(units.fold(torch.cat(channels)))
    return torch.stack(squares).sqrt().numpy()


METHOD = Control(
    name="magnitude",
    label="size of the weights, a control that looks at no text",
    needs="weights",
    packages=("torch",),
    draw=draw,
)
