"""Relevance of units: activation x gradient at the inputs of each layer's output projections, and nothing else.

Parameters are frozen, so the backward pass computes gradients of activations only. With the rules of LRP in place
(``lxt_patch``) the product is LRP relevance; without them it is gradient x activation. A neuron's relevance is the
column sum of weight x weight-gradient of the output projection, without ever forming a weight gradient; that of a
larger unit is the sum over its channels.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import nn

from excise.attribution.batches import Batch
from excise.attribution.objectives import Elementwise, differentiated, plain
from excise.errors import ExciseError
from excise.models.parts import decoder_layers, output_projections
from excise.models.units import Axis, axis, sites


class _Reading:
    """What the probes of one backward pass collect."""

    def __init__(self, batch: Batch) -> None:
        self.samples = len(batch.ids)
        # Only where real tokens are left out is there anything to mask: at padding the gradient is zero.
        self.counted = None if torch.equal(batch.counted, batch.mask) else batch.counted
        self.padding = None if bool(batch.mask.all()) else ~batch.mask
        self.found: dict[tuple[int, int], torch.Tensor] = {}
        """By layer and place of the site in it: ``[samples, channels]``."""

    def take(self, units: Axis) -> torch.Tensor:
        """What the last backward pass left, ``[samples, layers, units]`` float64; ready for the next one.

        Raises:
            ExciseError: some layer got no gradient.
        """
        layers = []
        for layer in range(units.layers):
            keys = [(layer, place) for place in range(len(units.sites))]
            if any(key not in self.found for key in keys):
                raise ExciseError(f"layer {layer} got no gradient: the model's forward pass is cut somewhere above it")
            layers.append(units.fold(torch.cat([self.found[key].cpu().double() for key in keys], dim=-1)))
        self.found = {}
        return torch.stack(layers, dim=1)


class _Probe(torch.autograd.Function):
    """Identity whose backward pass notes activation x gradient, summed over the counted tokens of each sample.

    As an autograd function, and not a hook on the tensor, it keeps the activation among the saved tensors, which
    layer-wise recomputation drops and makes again.
    """

    @staticmethod
    def forward(
        ctx: Any, activation: torch.Tensor, reading: _Reading, key: tuple[int, int] | None, halve: bool
    ) -> torch.Tensor:
        ctx.save_for_backward(activation)
        ctx.reading, ctx.key, ctx.halve = reading, key, halve
        return activation.view_as(activation)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:
        (activation,), (gradient,), reading = ctx.saved_tensors, gradients, ctx.reading
        passed = gradient / 2 if ctx.halve else gradient
        if ctx.key is None:
            return passed, None, None, None
        width = activation.shape[-1]
        first, second = activation.reshape(reading.samples, -1, width), gradient.reshape(reading.samples, -1, width)
        if ctx.key == (0, 0) and reading.padding is not None:
            refuse_padding(second[reading.padding.to(second.device)])
        if reading.counted is not None:
            second = second * reading.counted.to(second.device)[..., None]
        reading.found[ctx.key] = token_sum(lambda block: wide(first[:, block]) * wide(second[:, block]), first)
        return passed, None, None, None


def refuse_padding(gradients: torch.Tensor) -> None:
    """Refuse gradients at padding, which are exactly zero where attention is masked. NaN is left to the engine.

    Raises:
        ExciseError: one is not zero.
    """
    if gradients.nan_to_num(posinf=0, neginf=0).any():
        raise ExciseError(
            "a padding token has relevance: some attention of this model ran without its mask. "
            "Use --batch-size 1, and report the model."
        )


def wide(values: torch.Tensor) -> torch.Tensor:
    """The same values in float32, or in float64 where they are."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def token_sum(terms: Callable[[slice], torch.Tensor], like: torch.Tensor) -> torch.Tensor:
    """Sum over tokens in float64 (in float32 on devices that have no float64).

    Sums of a few dozen tokens are made in the precision of the terms and added up in float64: as exact as the terms
    themselves, no tensor of the size of the activations is made, and on a CPU the blocks stay in the cache.

    Args:
        terms: from a range of tokens to what is to be added, ``[samples, tokens of the range, width]``.
        like: ``[samples, tokens, width]``: shape and device.

    Returns:
        ``[samples, width]``.
    """
    samples, tokens, width = like.shape
    size = 32 if like.device.type == "cpu" else 256
    total = torch.zeros(
        samples, width, device=like.device, dtype=torch.float32 if like.device.type == "mps" else torch.float64
    )
    for start in range(0, tokens, size):
        total += terms(slice(start, start + size)).sum(1)
    return total


Starts = Callable[[torch.Tensor], Sequence[torch.Tensor]]
"""From the last hidden states to what backward passes start with: the gradients of scalars, each like the states."""


def relevance(
    model: Any,
    batch: Batch,
    *,
    objective: str,
    unit: str = "neuron",
    elementwise: Elementwise = plain,
    halve: bool = False,
) -> torch.Tensor:
    """Activation x gradient of every unit for every sample of a batch.

    Args:
        model: a causal language model of a supported family, frozen and in eval mode.
        batch: the batch, on the device of the model's embeddings.
        objective: one of ``attribution.OBJECTIVES``.
        unit: one of ``models.units.UNITS``.
        elementwise: how the logits' soft-capping is applied.
        halve: pass only half of the gradient on to what made the neurons' activations (gated LRP).

    Returns:
        ``[samples, layers, units]`` float64 on the CPU; signed, in units of the objective (logits).

    Raises:
        ExciseError: some layer got no gradient.
    """

    def starts(hidden: torch.Tensor) -> Sequence[torch.Tensor]:
        return torch.autograd.grad(differentiated(model, hidden, batch, objective, elementwise), hidden)

    return relevances(model, batch, starts, unit=unit, halve=halve)[0]


def relevances(
    model: Any, batch: Batch, starts: Starts, *, unit: str = "neuron", halve: bool = False
) -> list[torch.Tensor]:
    """Activation x gradient of every unit for several scalars, from one forward pass and a backward pass each.

    Args:
        model: as for ``relevance``.
        batch: as for ``relevance``.
        starts: the gradients of the scalars, from the last hidden states.
        unit: as for ``relevance``.
        halve: as for ``relevance``.

    Returns:
        Per scalar: ``[samples, layers, units]`` float64 on the CPU, in units of the scalar.

    Raises:
        ExciseError: some layer got no gradient.
    """
    reading, units, found = _Reading(batch), axis(model.config, unit), []
    with contextlib.ExitStack() as stack:

        def watch(module: nn.Module, key: tuple[int, int] | None, halve: bool) -> None:
            def probe(_: nn.Module, inputs: tuple[torch.Tensor]) -> Any:
                return _Probe.apply(inputs[0], reading, key, halve)  # type: ignore[no-untyped-call]

            stack.enter_context(_removing(module.register_forward_pre_hook(probe)))

        mlps = output_projections(model)
        for layer, (modules, mlp) in enumerate(zip(sites(model, unit), mlps, strict=True)):
            for place, module in enumerate(modules):
                watch(module, (layer, place), halve and module is mlp)
            if halve and mlp not in modules:
                watch(mlp, None, halve)
        embeddings = embed(model, batch).requires_grad_()
        hidden = last_hidden(model, batch, embeddings)
        gradients = starts(hidden.detach().requires_grad_())
        for number, gradient in enumerate(gradients, 1):
            torch.autograd.grad(hidden, embeddings, gradient, retain_graph=number < len(gradients))
            found.append(reading.take(units))
    return found


def embed(model: Any, batch: Batch) -> torch.Tensor:
    """Token embeddings ``[samples, tokens, hidden]``, scaled as the family scales them, outside any graph."""
    with torch.no_grad():
        embeddings: torch.Tensor = model.get_input_embeddings()(batch.input_ids)
    return embeddings.detach()


def last_hidden(model: Any, batch: Batch, embeddings: torch.Tensor) -> torch.Tensor:
    """Hidden states after the last layer and the final norm, ``[samples, tokens, hidden]``; no logits are made."""
    output = model.base_model(
        inputs_embeds=embeddings, attention_mask=batch.mask.long(), position_ids=batch.position_ids, use_cache=False
    )
    hidden: torch.Tensor = output.last_hidden_state
    return hidden


@contextlib.contextmanager
def recomputing(model: Any, enabled: bool) -> Iterator[None]:
    """Keep only the input of each decoder layer; run the layer again, patched as it is, in the backward pass.

    transformers' own gradient checkpointing works in training mode only, which would switch dropout on.
    """
    from torch.utils.checkpoint import checkpoint

    with contextlib.ExitStack() as undo:
        for layer in decoder_layers(model) if enabled else []:
            original = layer.forward

            def forward(*inputs: Any, original: Any = original, **options: Any) -> Any:
                return checkpoint(original, *inputs, use_reentrant=False, preserve_rng_state=False, **options)

            before = vars(layer).get("forward")
            layer.forward = forward
            if before is None:
                undo.callback(delattr, layer, "forward")
            else:
                undo.callback(setattr, layer, "forward", before)
        yield


@contextlib.contextmanager
def _removing(handle: Any) -> Iterator[None]:
    try:
        yield
    finally:
        handle.remove()
