"""Control: a uniform draw, so that any set of N neurons is equally likely to be removed."""

from pathlib import Path

import torch

from excise.models.families import neuron_shape
from excise.models.loading import load_config


def draw(model_folder: Path, seed: int) -> torch.Tensor:
    """Uniform in [0, 1), ``[layers, neurons]`` float64; the same seed and shape give the same draw."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(neuron_shape(load_config(model_folder)), generator=generator, dtype=torch.float64)
