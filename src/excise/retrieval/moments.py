"""Sums over tokens and texts of what units do in an encoder: additive, so that parts of a corpus can be added up.

A *unit* is a neuron (one input channel of the MLP's output projection) or a head (``size`` input channels of the
attention's). Both are handled as blocks of channels ``[..., units, size]``; a neuron's size is 1.
"""

import contextlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from excise.models.encoder import Encoder, batches, forward, padded, tokenised
from excise.models.families import head_shape
from excise.models.parts import attention_outputs, embedding, output_projections

if TYPE_CHECKING:
    from torch import nn

KINDS = ("neurons", "heads")

Sums = dict[str, Tensor]
"""Per layer, as ``KIND.NAME``: ``mean`` sums of activations ``[layers, units, size]``, and others by name."""

Batch = tuple[list[int], Tensor, Tensor]
"""(places of the texts, token ids, mask)."""


def projections(encoder: Encoder) -> dict[str, list["nn.Module"]]:
    """For each kind and layer the projection whose input channels are the units."""
    return {"neurons": output_projections(encoder.model), "heads": attention_outputs(encoder.model)}


def sizes(encoder: Encoder) -> dict[str, int]:
    """Channels of one unit of each kind."""
    return {"neurons": 1, "heads": head_shape(encoder.model.config)[3]}


@contextlib.contextmanager
def recording(encoder: Encoder) -> Iterator[dict[str, list[Tensor]]]:
    """Collect what enters the projections during a pass; each pass replaces what the last one left."""
    found = projections(encoder)
    inputs: dict[str, list[Tensor]] = {kind: [torch.empty(0)] * len(modules) for kind, modules in found.items()}
    with contextlib.ExitStack() as stack:
        for kind, modules in found.items():
            for layer, module in enumerate(modules):

                def keep(_: object, entering: tuple[Tensor], kind: str = kind, layer: int = layer) -> None:
                    inputs[kind][layer] = entering[0]

                stack.callback(module.register_forward_pre_hook(keep).remove)
        yield inputs


def corpus(encoder: Encoder, texts: Sequence[tuple[str, str]]) -> list[Batch]:
    """Batches of texts (kind, text), longest first."""
    ids: list[list[int]] = []
    for kind, text in texts:
        ids += tokenised(encoder, [text], kind)[0]
    return [(places, *padded(encoder, [ids[place] for place in places])) for places in batches([len(i) for i in ids])]


def blocks(values: Tensor, size: int) -> Tensor:
    """``[..., channels]`` -> ``[..., units, size]``."""
    return values.reshape(*values.shape[:-1], -1, size)


def _add(sums: Sums, name: str, layer: int, layers: int, value: Tensor) -> None:
    value = value.double()
    if name not in sums:
        sums[name] = value.new_zeros(layers, *value.shape)
    sums[name][layer] += value


def activation_moments(encoder: Encoder, texts: Sequence[tuple[str, str]]) -> Sums:
    """Means and second moments of activations over tokens, padding not counted.

    Returns:
        ``KIND.mean`` ``[layers, units, size]`` and ``KIND.square`` ``[layers, units, size, size]``.
    """
    sums: Sums = {}
    tokens = 0
    with torch.inference_mode(), recording(encoder) as inputs:
        for _, rows, mask in corpus(encoder, texts):
            forward(encoder, rows, mask)
            tokens += int(mask.sum())
            for kind, size in sizes(encoder).items():
                for layer, values in enumerate(inputs[kind]):
                    units = blocks(values[mask.bool()], size)
                    _add(sums, f"{kind}.mean", layer, len(inputs[kind]), units.sum(0))
                    square = torch.einsum("tus,tur->usr", units, units)
                    _add(sums, f"{kind}.square", layer, len(inputs[kind]), square)
    return {name: value / tokens for name, value in sums.items()}


def embeddings(encoder: Encoder, texts: Sequence[tuple[str, str]]) -> Tensor:
    """Embeddings of texts (kind, text) ``[texts, hidden]``, float64."""
    found = torch.zeros(len(texts), encoder.model.config.hidden_size, dtype=torch.float64)
    with torch.inference_mode():
        for places, rows, mask in corpus(encoder, texts):
            found[places] = forward(encoder, rows, mask).cpu().double()
    return found


def gradient_moments(encoder: Encoder, texts: Sequence[tuple[str, str]], directions: Tensor) -> Sums:
    """Moments of activation times gradient of a projection of the embedding.

    For text s let L = e_s . r_s and g = dL/da. With A = sum_t a_t . g_t (over the channels of the
    unit) and B = sum_t g_t (per channel), the sums over texts are ``KIND.aa`` of A^2 ``[layers, units]``, ``KIND.ab``
    of A B ``[layers, units, size]`` and ``KIND.bb`` of B B' ``[layers, units, size, size]``; with the mean activation
    ``KIND.mean`` they give the sum of squares of sum_t (a_t - mean) . g_t for one backward pass.

    Args:
        encoder: frozen.
        texts: (kind, text).
        directions: r, ``[texts, hidden]``.

    Returns:
        ``mean`` divided by tokens, the others by texts.
    """
    sums: Sums = {}
    tokens = 0
    started = embedding(encoder.model).register_forward_hook(lambda _, __, states: states.requires_grad_())
    try:
        with recording(encoder) as inputs:
            for places, rows, mask in corpus(encoder, texts):
                with torch.enable_grad():
                    vectors = forward(encoder, rows, mask)
                    total = (vectors * directions[places].to(vectors)).sum()
                    flat = [values for kind in KINDS for values in inputs[kind]]
                    gradients = iter(torch.autograd.grad(total, flat))
                tokens += int(mask.sum())
                for kind in KINDS:
                    for layer, values in enumerate(inputs[kind]):
                        size, layers = sizes(encoder)[kind], len(inputs[kind])
                        for name, value in _per_batch(values.detach(), next(gradients), mask, size).items():
                            _add(sums, f"{kind}.{name}", layer, layers, value)
    finally:
        started.remove()
    return {name: value / (tokens if name.endswith(".mean") else len(texts)) for name, value in sums.items()}


def _per_batch(values: Tensor, gradient: Tensor, mask: Tensor, size: int) -> Sums:
    """What one batch adds to ``mean``, ``aa``, ``ab`` and ``bb`` of one layer."""
    counted = mask[..., None].to(values.dtype)
    a, g = blocks(values * counted, size), blocks(gradient * counted, size)
    both = (a * g).sum((1, 3)).double()
    alone = g.sum(1).double()
    return {
        "mean": a.sum((0, 1)),
        "aa": both.square().sum(0),
        "ab": (both[..., None] * alone).sum(0),
        "bb": torch.einsum("bus,bur->usr", alone, alone),
    }
