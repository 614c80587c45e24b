"""For comparison only: the score of the public SparC3 reproduction, absolute weight relevances of each sample.

    score_i = mean over samples of sum_j abs(sum over tokens of w_ij a_tj g_ti)

over the rows ``i`` of the up projection, with the gradients ``g`` of AttnLRP. Neither the sign that SparC3 keeps nor
gate and output projection enter, and a large score says that a neuron matters, not what for. It costs a weight
gradient for every sample.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from excise.attribution import Options, Values
from excise.attribution.backward import recomputing, relevance, wide
from excise.attribution.batches import Batch
from excise.attribution.common import mean_relevance, refuse_zero, subtract
from excise.attribution.lxt_patch import patched
from excise.errors import ExciseError
from excise.models.families import neuron_shape
from excise.models.parts import input_projections

neuron_scores = mean_relevance
contrast = subtract
SQUARES = ("relevance",)
ROWS: tuple[str, ...] = ()
BACKWARD = True
PACKAGES = ("torch", "transformers", "lxt")


@contextlib.contextmanager
def measuring(model: nn.Module, options: Options) -> Iterator[Callable[[Batch], Values]]:
    """See ``excise.attribution``; values: ``relevance``, never negative."""
    with patched(model, "attnlrp") as patch, recomputing(model, options.recompute):

        def measure(batch: Batch) -> Values:
            layers, neurons = neuron_shape(model.config)
            found = torch.zeros(len(batch.ids), layers, neurons, dtype=torch.float64)
            with contextlib.ExitStack() as stack:
                for layer, projections in enumerate(input_projections(model)):
                    if projections[-1].get_parameter("weight").is_meta:
                        raise ExciseError("lrp-abs-weights needs the weights in memory; this model is offloaded")

                    def note(module: nn.Module, inputs: Any, output: torch.Tensor, layer: int = layer) -> Any:
                        return _RowSums.apply(output, inputs[0], module, found, layer)  # type: ignore[no-untyped-call]

                    stack.callback(projections[-1].register_forward_hook(note).remove)
                relevance(model, batch, objective=options.objective, elementwise=patch.elementwise, halve=patch.halve)
            patch.verify_ran()
            refuse_zero(found, batch)
            return {"relevance": found}

        yield measure


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
