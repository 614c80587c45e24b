"""Sums of absolute weight relevances per row of a projection, one sample at a time."""

from typing import Any

import torch
from torch import nn

from excise.attribution.backward import wide


class _RowSums(torch.autograd.Function):
    """Identity on a projection's output whose backward pass notes sum_j abs(w_ij G_ij) of every sample."""

    @staticmethod
    def forward(
        ctx: Any, output: torch.Tensor, value: torch.Tensor, projection: nn.Module, found: torch.Tensor, layer: int
    ) -> torch.Tensor:
        ctx.save_for_backward(value.detach())
        ctx.projection, ctx.found, ctx.layer = projection, found, layer
        return output.view_as(output)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (value,), (gradient,) = ctx.saved_tensors, gradients
        samples, _, neurons = ctx.found.shape
        weight = ctx.projection.get_parameter("weight")
        weight = weight.T if type(ctx.projection).__name__ == "Conv1D" else weight
        inputs = value.reshape(samples, -1, value.shape[-1])
        outputs = gradient.reshape(samples, -1, gradient.shape[-1])[
            ..., -neurons:
        ]  # up is the last block of a fused one
        for sample in range(samples):
            whole = wide(outputs[sample]).T @ wide(inputs[sample])  # [neurons, hidden]
            ctx.found[sample, ctx.layer] = (whole * weight[-neurons:]).abs().sum(1, dtype=torch.float64).cpu()
        return gradient, None, None, None, None


def noting(projection: nn.Module, found: torch.Tensor, layer: int) -> Any:
    """A forward hook for a projection that fills ``found[:, layer]`` during the backward pass.

    Args:
        projection: the projection; its last rows are the neurons.
        found: ``[samples, layers, neurons]``.
        layer: which layer it is in.
    """

    def note(_: nn.Module, inputs: Any, output: torch.Tensor) -> Any:
        return _RowSums.apply(output, inputs[0], projection, found, layer)  # type: ignore[no-untyped-call]

    return note
