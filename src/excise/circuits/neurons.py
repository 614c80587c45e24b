"""Single neurons of the MLPs: all of them to first order, and exactly where it matters.

A neuron is a small change, so the gradient at the clean prompt is nearly exact for most (attribution patching). The few
for which it is not are among the strongest: those are patched exactly, and so is a random sample of the rest, which
bounds what was missed (after AtP*, Kramar et al. 2024, arXiv:2403.00745).
"""

import torch

from excise.circuits.objectives import value as objective_value
from excise.circuits.run import Prepared
from excise.circuits.stream import Taps


class _Activations(Taps):
    """Keeps the activations of all neurons, in the graph."""

    def __init__(self) -> None:
        self.kept: list[torch.Tensor] = []

    def neurons(self, layer: int, value: torch.Tensor) -> torch.Tensor:
        value = value.view_as(value)
        self.kept.append(value)
        return value


def neuron_scores(prepared: Prepared, objective: str) -> torch.Tensor:
    """Attribution patching of every neuron: (clean - corrupted activation) x gradient at the clean prompt.

    Args:
        prepared: the pairs, with ``resample`` ablation.
        objective: one of ``OBJECTIVES``.

    Returns:
        float64 ``[pairs, layers, neurons]``; positive: the neuron supports the behaviour.
    """
    taps = _Activations()
    with torch.enable_grad():
        logits = prepared.prefix.run(prepared.embeddings.detach().requires_grad_(), taps)
        total = objective_value(objective, logits, prepared.batch, prepared.clean_logits).sum()
        gradients = torch.autograd.grad(total, taps.kept)
    scores = []
    for layer, gradient in enumerate(gradients):
        difference = prepared.clean.activations[layer] - prepared.corrupt.activations[layer]
        scores.append((difference * gradient).sum(1, dtype=torch.float64).cpu())
    return torch.stack(scores, dim=1)


def where_it_matters(scores: torch.Tensor, strongest: int, sampled: int, seed: int) -> tuple[list[int], list[int]]:
    """Neurons to patch exactly: the strongest by absolute score, and a random sample of the others.

    Args:
        scores: mean score per neuron, flattened.
        strongest: how many.
        sampled: how many.
        seed: seed of the sample.
    """
    order = torch.argsort(scores.abs(), descending=True, stable=True)
    rest = order[strongest:]
    drawn = torch.randperm(len(rest), generator=torch.Generator().manual_seed(seed))[:sampled]
    return order[:strongest].tolist(), rest[drawn].tolist()
