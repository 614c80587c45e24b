"""What goes into each layer's MLP and what its units do, during a forward pass without gradients."""

import contextlib
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from excise.attribution.backward import embed, last_hidden, token_sum, wide
from excise.attribution.batches import Batch
from excise.errors import ExciseError
from excise.models.parts import input_projections
from excise.models.units import sites

Reduce = Callable[[torch.Tensor], torch.Tensor]
"""Maps ``[samples, tokens, width]`` to ``[samples, width]``; tokens that are not counted hold ``fill``."""


def collect(
    model: Any,
    batch: Batch,
    *,
    unit: str = "neuron",
    inputs: Reduce | None = None,
    channels: Reduce | None = None,
    fill: float = 0.0,
) -> dict[str, torch.Tensor]:
    """Reduce over tokens the MLP inputs, and the channels of the units, in every layer.

    Args:
        model: a causal language model of a supported family, in eval mode.
        batch: the batch, on the device of the model's embeddings.
        unit: one of ``models.units.UNITS``.
        inputs: applied to what enters the first input projection of the MLP.
        channels: applied to what enters the output projections that the units write through.
        fill: value of the tokens that are not counted.

    Returns:
        ``input [samples, layers, hidden]`` and ``activation [samples, layers, channels]``, those asked for, float64;
        the channels of several sites are joined.
    """
    watched: dict[str, tuple[list[tuple[nn.Module, ...]], Reduce]] = {}
    if inputs is not None:
        watched["input"] = [projections[:1] for projections in input_projections(model)], inputs
    if channels is not None:
        watched["activation"] = sites(model, unit), channels
    found: dict[tuple[str, int, int], torch.Tensor] = {}
    with contextlib.ExitStack() as stack:
        for name, (layers, reduce) in watched.items():
            note = _notes(found, reduce, batch, fill)
            for layer, modules in enumerate(layers):
                for place, module in enumerate(modules):
                    stack.callback(module.register_forward_pre_hook(note((name, layer, place))).remove)
        with torch.no_grad():
            last_hidden(model, batch, embed(model, batch))
    if len(found) != sum(len(modules) for layers, _ in watched.values() for modules in layers):
        raise ExciseError(f"{', '.join(watched)}: some layer did not run through its projections")
    return {
        name: torch.stack(
            [
                torch.cat([found[name, layer, place] for place in range(len(modules))], dim=-1)
                for layer, modules in enumerate(layers)
            ],
            dim=1,
        )
        for name, (layers, _) in watched.items()
    }


def _notes(
    found: dict[tuple[str, int, int], torch.Tensor], reduce: Reduce, batch: Batch, fill: float
) -> Callable[[tuple[str, int, int]], Callable[[nn.Module, tuple[torch.Tensor]], None]]:
    """Makes the hook of a key, which puts there what enters its module, reduced over tokens."""
    everywhere = bool(batch.counted.all())

    def note(key: tuple[str, int, int]) -> Callable[[nn.Module, tuple[torch.Tensor]], None]:
        def hook(_: nn.Module, arguments: tuple[torch.Tensor]) -> None:
            value = arguments[0].reshape(len(batch.ids), -1, arguments[0].shape[-1])
            if not everywhere:
                value = value.masked_fill(~batch.counted.to(value.device)[..., None], fill)
            found[key] = reduce(value).cpu().double()

        return hook

    return note


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
