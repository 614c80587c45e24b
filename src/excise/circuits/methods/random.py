"""A control: every edge gets a random score."""

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from excise.circuits.stream import Stream


def draw(stream: "Stream", seed: int) -> torch.Tensor:
    """Standard normal scores, float64 ``[sources, destinations]``."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(stream.graph.edges.shape, generator=generator, dtype=torch.float64) * stream.graph.edges
