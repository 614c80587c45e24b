"""Control: a uniform draw, so that any set of N units is equally likely to be removed."""

from pathlib import Path

from excise.artefacts import Array
from excise.attribution import Control
from excise.models.units import Axis


def draw(model_folder: Path, seed: int, units: Axis) -> Array:  # noqa: ARG001 (a shape is enough)
    """Uniform in [0, 1), ``[layers, units]`` float64; the same seed and shape give the same draw."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    return torch.rand(units.shape, generator=generator, dtype=torch.float64).numpy()


METHOD = Control(
    name="random",
    label="a random draw, a control that looks at no text",
    needs="nothing",
    packages=("torch",),
    draw=draw,
    seeded=True,
)
