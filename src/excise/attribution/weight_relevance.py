"""Relevance of single weights: R_w = sum over samples and tokens of w_ij a_j g_i (SparC3, eq. 8).

The sum is *signed*, and terms of tokens cancel in it. The other form, *token*, is the root of the sum of their squares,
``|w_ij| sqrt(sum a_j^2 g_i^2)``: how much a weight matters somewhere, whichever way.

A product of its own, as large as the model, for pruning single weights; neuron work never needs it. It is made for a
range of layers at a time, so that its float64 accumulators fit, and row by row inside a matrix, so that no second
tensor of a matrix's size is made.
"""

import contextlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from excise.attribution import Options
from excise.attribution.backward import recomputing, relevance, wide
from excise.attribution.batches import Batch
from excise.attribution.engine import check_causal, check_ready
from excise.attribution.lxt_patch import patched
from excise.errors import ExciseError
from excise.models.loading import input_device
from excise.models.parts import decoder_layers
from excise.progress import Progress

FORMS = ("signed", "token")

ROWS = 1024
"""Rows of a matrix that are handled at once."""


def weight_relevance(
    model: Any, batches: Sequence[Batch], layers: range, *, rule: str, options: Options, form: str = "signed"
) -> list[dict[str, torch.Tensor]]:
    """Relevance of every weight of every linear map of some layers, summed over all samples.

    Args:
        model: a causal language model of a supported family, with its weights in memory.
        batches: all batches of the corpus.
        layers: which decoder layers.
        rule: one of ``lxt_patch.RULES``.
        options: the target, and whether to recompute.
        form: one of ``FORMS``.

    Returns:
        For each of ``layers``: ``{path inside the layer: [like the weight]}``, float32, in units of the target.

    Raises:
        ExciseError: the model is not covered, is offloaded, or a value is NaN or infinite (named).
    """
    check_ready(model)
    chosen = [decoder_layers(model)[layer] for layer in layers]
    maps = [
        {name: part for name, part in layer.named_modules() if isinstance(part, nn.Linear | Conv1D)} for layer in chosen
    ]
    totals = []
    for parts in maps:
        if any(part.weight.is_meta for part in parts.values()):
            raise ExciseError("weight relevance needs the weights in memory; this model is offloaded")
        totals.append({name: torch.zeros_like(part.weight, dtype=torch.float64) for name, part in parts.items()})
    with contextlib.ExitStack() as stack:
        patch = stack.enter_context(patched(model, rule))
        stack.enter_context(recomputing(model, options.recompute))
        progress = stack.enter_context(Progress(sum(len(b.ids) for b in batches), "samples", "weight relevance"))
        for parts, sums in zip(maps, totals, strict=True):
            for name, part in parts.items():
                stack.callback(
                    part.register_forward_hook(_noting(sums[name], isinstance(part, Conv1D), form == "token")).remove
                )
        for batch in batches:
            moved = batch.to(input_device(model))
            if batch is batches[0]:
                check_causal(model, moved)
            relevance(model, moved, objective=options.objective, elementwise=patch.elementwise, halve=patch.halve)
            patch.verify_ran()
            progress.advance(len(batch.ids))
    found = []
    for layer, parts, sums in zip(layers, maps, totals, strict=True):
        factors = {name: sums[name].sqrt_() if form == "token" else sums[name] for name in parts}
        sizes = {name: part.weight.abs() if form == "token" else part.weight for name, part in parts.items()}
        products = {name: factors[name].mul_(sizes[name]).float().cpu() for name in parts}
        for name, product in products.items():
            if not torch.isfinite(product).all():
                raise ExciseError(f"layer {layer}, {name}: some weight's relevance is NaN or infinite")
        found.append(products)
    return found


def _noting(total: torch.Tensor, transposed: bool, squared: bool) -> Any:
    def note(_: nn.Module, inputs: tuple[torch.Tensor], output: torch.Tensor) -> Any:
        return _Outer.apply(output, inputs[0], total, transposed, squared)  # type: ignore[no-untyped-call]

    return note


class _Outer(torch.autograd.Function):
    """Identity on a linear map's output whose backward pass adds gradient x input, or their squares, to ``total``."""

    @staticmethod
    def forward(
        ctx: Any, output: torch.Tensor, value: torch.Tensor, total: torch.Tensor, transposed: bool, squared: bool
    ) -> Any:
        ctx.save_for_backward(value.detach())
        ctx.total, ctx.transposed, ctx.squared = total, transposed, squared
        return output.view_as(output)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None, None, None]:
        (value,), (gradient,) = ctx.saved_tensors, gradients
        first, second = value.reshape(-1, value.shape[-1]), gradient.reshape(-1, gradient.shape[-1])
        if not ctx.transposed:  # stored output x input
            first, second = second, first
        second = wide(second).square() if ctx.squared else wide(second)
        for start in range(0, first.shape[1], ROWS):
            rows = wide(first[:, start : start + ROWS])
            ctx.total[start : start + ROWS] += (rows.square() if ctx.squared else rows).T @ second
        return gradient, None, None, None, None
