"""Measure the inputs of a layer's linear maps on calibration windows."""

import contextlib
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from excise.compress.inputs import Inputs
from excise.compress.streaming import Call, run_layer


class _Enough(Exception):
    """The inputs of all maps are known; what the layer would compute with the last one is not needed."""


def measure(
    layer: nn.Module,
    maps: dict[str, nn.Module],
    hidden: Iterable[Tensor],
    call: Call,
    *,
    gram: bool,
    outputs: bool = True,
) -> tuple[dict[str, Inputs], Tensor | None]:
    """Run a layer on every window, one at a time.

    Args:
        layer: on the device that computes.
        maps: its linear maps to measure, by path.
        hidden: the hidden states of each window, ``[tokens, hidden]``.
        call: what the layer is called with besides.
        gram: Gram matrices, or only the norms.
        outputs: whether the layer's outputs are wanted; otherwise a pass ends before the last map is multiplied.

    Returns:
        The inputs of each map (maps that read the same tensor share theirs), and the layer's outputs
        ``[windows, tokens, hidden]`` on the CPU, where they are wanted.
    """
    found: dict[str, Inputs] = {}
    seen: dict[str, Tensor] = {}  # of one pass; holding the tensors keeps their identity

    def noting(name: str) -> Any:
        def note(_: nn.Module, arguments: tuple[Tensor, ...]) -> None:
            value = arguments[0]
            owner = next((other for other, tensor in seen.items() if tensor is value), None)
            if owner is not None:
                found[name] = found[owner]
            else:
                if name not in found:
                    found[name] = Inputs(value.shape[-1], gram=gram, device=value.device)
                found[name].add(value)
            seen[name] = value
            if not outputs and len(seen) == len(maps):
                raise _Enough

        return note

    hooks = [part.register_forward_pre_hook(noting(name)) for name, part in maps.items()]
    ran = []
    try:
        for window in hidden:
            with contextlib.suppress(_Enough):
                ran.append(forward(layer, [window], call))
            seen.clear()
    finally:
        for hook in hooks:
            hook.remove()
    return found, torch.cat(ran) if ran else None


def forward(layer: nn.Module, hidden: Iterable[Tensor], call: Call) -> Tensor:
    """A layer's outputs for every window, ``[windows, tokens, hidden]`` on the CPU."""
    device = next(layer.parameters()).device
    with torch.inference_mode():
        return torch.cat([run_layer(layer, window[None].to(device), call).cpu() for window in hidden])
