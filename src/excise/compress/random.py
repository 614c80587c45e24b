"""The control: weights pruned at random."""

import torch
from torch import Tensor


def score(weight: Tensor, seed: int) -> Tensor:
    """Uniform in [0, 1), like the weight ``[outputs, inputs]``; drawn on the CPU, so that devices agree."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(weight.shape, generator=generator).to(weight.device)
