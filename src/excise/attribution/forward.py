"""What goes into each layer's MLP and what its neurons do, during a forward pass without gradients."""

import contextlib
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from excise.attribution.backward import embed, last_hidden, token_sum, wide
from excise.attribution.batches import Batch
from excise.errors import ExciseError
from excise.models.families import neuron_shape
from excise.models.parts import input_projections, output_projections

Reduce = Callable[[torch.Tensor], torch.Tensor]
"""Maps ``[samples, tokens, width]`` to ``[samples, width]``; tokens that are not counted hold ``fill``."""


def collect(
    model: Any, batch: Batch, *, inputs: Reduce | None = None, neurons: Reduce | None = None, fill: float = 0.0
) -> dict[str, torch.Tensor]:
    """Reduce over tokens the MLP inputs and the neuron activations of every layer.

    Args:
        model: a causal language model of a supported family, in eval mode.
        batch: the batch, on the device of the model's embeddings.
        inputs: applied to what enters the first input projection.
        neurons: applied to what enters the output projection.
        fill: value of the tokens that are not counted.

    Returns:
        ``input [samples, layers, hidden]`` and ``activation [samples, layers, neurons]``, those asked for, float64.
    """
    layers, _ = neuron_shape(model.config)
    found: dict[str, list[torch.Tensor | None]] = {}
    everywhere = bool(batch.counted.all())
    with contextlib.ExitStack() as stack:

        def watch(name: str, modules: list[nn.Module], reduce: Reduce) -> None:
            found[name] = [None] * layers
            for layer, module in enumerate(modules):

                def note(_: nn.Module, arguments: tuple[torch.Tensor], layer: int = layer) -> None:
                    value = arguments[0].reshape(len(batch.ids), -1, arguments[0].shape[-1])
                    if not everywhere:
                        value = value.masked_fill(~batch.counted.to(value.device)[..., None], fill)
                    found[name][layer] = reduce(value).cpu().double()

                stack.callback(module.register_forward_pre_hook(note).remove)

        if inputs is not None:
            watch("input", [projections[0] for projections in input_projections(model)], inputs)
        if neurons is not None:
            watch("activation", output_projections(model), neurons)
        with torch.no_grad():
            last_hidden(model, batch, embed(model, batch))
    for name, values in found.items():
        if any(value is None for value in values):
            raise ExciseError(f"{name}: some layer did not run through its projections")
    return {name: torch.stack([v for v in values if v is not None], dim=1) for name, values in found.items()}


def per_token(values: dict[str, torch.Tensor], batch: Batch) -> dict[str, torch.Tensor]:
    """Sums over tokens ``[samples, layers, width]`` as means over the counted tokens of each sample.

    So samples of different length, and corpora of such samples, are on one scale and can be subtracted.
    """
    tokens = batch.counted.sum(1).cpu().double()[:, None, None]
    return {name: value / tokens for name, value in values.items()}


def squared_norm(values: torch.Tensor) -> torch.Tensor:
    """Squared norm over tokens, ``[samples, tokens, width] -> [samples, width]``."""
    return token_sum(lambda block: wide(values[:, block]).square(), values)


def absolute_sum(values: torch.Tensor) -> torch.Tensor:
    """Sum over tokens of absolute values, ``[samples, tokens, width] -> [samples, width]``."""
    return token_sum(lambda block: wide(values[:, block]).abs(), values)


def signed_sum(values: torch.Tensor) -> torch.Tensor:
    """Sum over tokens, ``[samples, tokens, width] -> [samples, width]``."""
    return token_sum(lambda block: wide(values[:, block]), values)
