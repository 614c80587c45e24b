"""The logit lens on single neurons: which tokens a neuron makes likelier when it fires.

What neuron ``i`` writes is its activation times column ``i`` of the output projection. That column, sent through the
final norm and the unembedding, gives a number per token (nostalgebraist 2020; Geva et al. 2022, "Transformer
feed-forward layers build predictions by promoting concepts in the vocabulary space"). It leaves out everything
between the neuron's layer and the last one, and a norm between MLP and residual stream where a family has one: a
picture, not a measurement.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from excise.models.families import architecture
from excise.models.parts import final_norm, output_projections

Neuron = tuple[int, int]
"""(layer, neuron)."""


def looked_at(model: Any, neurons: Sequence[Neuron]) -> list[nn.Module]:
    """The modules that ``promoted`` needs: the output projections of these neurons, the final norm, the unembedding."""
    projections = output_projections(model)
    layers = sorted({layer for layer, _ in neurons})
    return [*(projections[layer] for layer in layers), final_norm(model), model.get_output_embeddings()]


@torch.no_grad()
def promoted(model: Any, neurons: Sequence[Neuron], count: int) -> tuple[list[list[int]], list[list[int]]]:
    """The tokens that each neuron speaks for most, and against most, when its activation is positive.

    Against a negative activation the two lists change places: a gated MLP has activations of both signs.

    Args:
        model: a causal language model of a supported family.
        neurons: which.
        count: tokens a list.

    Returns:
        (for, against): token ids, strongest first, one list a neuron.
    """
    across = 0 if architecture(model.config).transposed else 1
    projections = output_projections(model)
    columns = [projections[layer].get_parameter("weight").select(across, neuron) for layer, neuron in neurons]
    norm, head = final_norm(model), model.get_output_embeddings()
    directions = torch.stack(columns).to(head.weight.device, head.weight.dtype)
    nothing = torch.zeros_like(directions[:1])  # a norm and a head may have biases, which no neuron speaks for
    logits = (head(norm(directions)) - head(norm(nothing))).float()
    return logits.topk(count).indices.tolist(), (-logits).topk(count).indices.tolist()
