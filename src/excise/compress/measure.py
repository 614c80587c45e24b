"""Measure the inputs of a layer's linear maps on calibration windows."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from excise.compress.inputs import Inputs
from excise.compress.streaming import Call, run_layer


def measure(
    layer: nn.Module, maps: dict[str, nn.Module], hidden: Iterable[Tensor], call: Call, *, gram: bool
) -> tuple[dict[str, Inputs], Tensor]:
    """Run a layer on every window, one at a time.

    Args:
        layer: on the device that computes.
        maps: its linear maps to measure, by path.
        hidden: the hidden states of each window, ``[tokens, hidden]``.
        call: what the layer is called with besides.
        gram: Gram matrices, or only the norms.

    Returns:
        The inputs of each map (maps that read the same tensor share theirs), and the layer's outputs
        ``[windows, tokens, hidden]`` on the CPU.
    """
    found: dict[str, Inputs] = {}
    seen: list[tuple[Tensor, str]] = []  # of one pass; holding the tensors keeps their identity

    def noting(name: str) -> Any:
        def note(_: nn.Module, arguments: tuple[Tensor, ...]) -> None:
            value = arguments[0]
            owner = next((other for tensor, other in seen if tensor is value), None)
            if owner is not None:
                found[name] = found[owner]
                return
            if name not in found:
                found[name] = Inputs(value.shape[-1], gram=gram, device=value.device)
            found[name].add(value)
            seen.append((value, name))

        return note

    hooks = [part.register_forward_pre_hook(noting(name)) for name, part in maps.items()]
    try:
        return found, forward(layer, hidden, call, after_each=seen.clear)
    finally:
        for hook in hooks:
            hook.remove()


def forward(layer: nn.Module, hidden: Iterable[Tensor], call: Call, *, after_each: Any = None) -> Tensor:
    """A layer's outputs for every window, ``[windows, tokens, hidden]`` on the CPU."""
    device = next(layer.parameters()).device
    outputs = []
    with torch.inference_mode():
        for window in hidden:
            outputs.append(run_layer(layer, window[None].to(device), call).cpu())
            if after_each is not None:
                after_each()
    return torch.cat(outputs)
