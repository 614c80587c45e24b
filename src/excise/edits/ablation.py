"""Apply a unit list to a model in memory, and undo it.

The activation ``a`` of every channel of a unit becomes ``c + s (a - c)``: of its distance from ``c``, zero or its mean
activation, the share ``s`` remains, its scale. ``s = 0`` is zero ablation or mean ablation. An output projection
``W a + b`` does it exactly, on any input: column ``i`` of ``W`` is scaled by ``s``, and ``(1 - s) c`` times the old
column is added to ``b``. Where ``s = 0`` nothing reads the input rows of a neuron any more, and they become zero too.

A whole MLP or attention is what it adds to the residual stream, bias included: zero ablation scales ``b`` as well. Its
mean, ``W c + b``, already contains ``b``.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from excise.artefacts import Json
from excise.edits.unit_list import described, means_of, place, scale_of
from excise.errors import ExciseError
from excise.models.families import architecture
from excise.models.parts import decoder_layers, input_projections, output_projections
from excise.models.units import NUMBERED, Axis, axis, sites

if TYPE_CHECKING:
    import torch
    from torch import nn

Undo = list[Callable[[], object]]
"""Steps that put back what was overwritten; the last one comes first."""

Channel = tuple[int, float, float]
"""(channel, scale, mean) at one site."""


def prune(model: "nn.Module", units: Json) -> Undo:
    """Apply a unit list in place.

    An output projection that has no bias gets one where a mean has to be kept.

    Args:
        model: a causal language model of a supported family.
        units: a unit list (``read_units``).

    Returns:
        What ``restore`` needs.

    Raises:
        ExciseError: a unit lies outside the model, or in a layer that is offloaded, or its ablation would be undone by
            the norm that follows it; nothing was changed.
    """
    import torch

    where = axis(model.config, units["unit"])
    _refuse_normed(model, units)
    planned = _planned(where, units)
    projections, mlps = sites(model, units["unit"]), output_projections(model)
    for layer, _ in planned:
        if any(parameter.is_meta for parameter in decoder_layers(model)[layer].parameters()):
            raise ExciseError(  # writing to it would change nothing, silently
                f"layer {layer} does not fit on the accelerators and is brought there for each pass, so it cannot "
                "be pruned; take more accelerators, or --device cpu"
            )
    undo: Undo = []
    with torch.no_grad():
        for (layer, site), channels in sorted(planned.items()):
            projection = projections[layer][site]
            _scale_channels(model, projection, sorted(channels), undo)
            if projection is mlps[layer]:
                _silence(model, layer, [channel for channel, scale, _ in sorted(channels) if scale == 0], undo)
            if units["unit"] not in NUMBERED and units["ablation"] == "zero":
                _scale_bias(projection, channels[0][1], undo)
    return undo


def _planned(where: Axis, units: Json) -> dict[tuple[int, int], list[Channel]]:
    """By layer and site, the channels to change.

    Raises:
        ExciseError: a row lies outside the model, or has a mean of another length.
    """
    found: dict[tuple[int, int], list[Channel]] = {}
    for row in units["rows"]:
        layer, index = place(row, units["unit"])
        if not (0 <= layer < where.layers and 0 <= index < where.size):
            raise ExciseError(
                f"the unit list names {described(row, units['unit'])}; "
                f"this model has {where.layers} layers x {where.size} {where.unit}s"
            )
        scale, means = scale_of(units, row), means_of(units, row) or [0.0] * where.width
        if len(means) != where.width:
            raise ExciseError(
                f"the unit list: {described(row, units['unit'])} has a mean of {len(means)} numbers; "
                f"in this model it has {where.width} channels"
            )
        start = index * where.width  # only units of a single site are several in a layer
        for site, (_, channels) in enumerate(where.sites):
            count = min(channels, where.width)
            changes = [(start + offset, scale, float(mean)) for offset, mean in enumerate(means[:count])]
            found.setdefault((layer, site), []).extend(changes)
            means = means[count:]
    return found


def _refuse_normed(model: "nn.Module", units: Json) -> None:
    """Refuse to scale a whole write that is normalised before it is added: the norm would undo it.

    Raises:
        ExciseError: such a norm follows, and a scale is not 0.
    """
    norms = architecture(model.config).norms
    normed = norms.attention_write or norms.mlp_write
    if units["unit"] in NUMBERED or not normed or units["ablation"] == "mean":
        return
    for row in units["rows"]:
        if (scale := scale_of(units, row)) != 0:
            raise ExciseError(
                f"{described(row, units['unit'])} is scaled by {scale:g}, but this family of models normalises what "
                "attention and MLP write, which undoes it. Use scale 0, or heads and neurons"
            )


def _scale_channels(model: "nn.Module", projection: "nn.Module", channels: Sequence[Channel], undo: Undo) -> None:
    """Scale some columns of an output projection about their means."""
    import torch

    positions = [channel for channel, _, _ in channels]
    scale, mean = torch.tensor([change[1:] for change in channels], dtype=torch.float64).unbind(1)
    weight = projection.get_parameter("weight")
    dim = 0 if architecture(model.config).transposed else 1
    columns = _at(weight, dim, positions).cpu().double()
    if mean.any():
        _shift(projection, torch.tensordot(columns, (1 - scale) * mean, dims=([dim], [0])), undo)
    scaled = columns * (scale if dim == 1 else scale[:, None]) + 0.0  # no -0
    _write(weight, dim, positions, scaled, undo)


def _silence(model: "nn.Module", layer: int, neurons: Sequence[int], undo: Undo) -> None:
    """Set the input rows of neurons that nothing reads any more to zero."""
    import torch

    family = architecture(model.config)
    for projection in input_projections(model)[layer] if neurons else ():
        for name, tensor in projection.named_parameters():
            dim = 1 if family.transposed and name == "weight" else 0
            width = tensor.shape[dim] // family.fused
            rows = [block * width + neuron for block in range(family.fused) for neuron in neurons]
            _write(tensor, dim, rows, torch.zeros_like(_at(tensor, dim, rows)), undo)


def _at(tensor: "torch.Tensor", dim: int, positions: Sequence[int]) -> "torch.Tensor":
    import torch

    return tensor.index_select(dim, torch.tensor(positions, device=tensor.device))


def _write(tensor: "torch.Tensor", dim: int, positions: Sequence[int], values: "torch.Tensor", undo: Undo) -> None:
    import torch

    index = torch.tensor(positions, device=tensor.device)
    undo.append(functools.partial(tensor.index_copy_, dim, index, tensor.index_select(dim, index)))
    tensor.index_copy_(dim, index, values.to(tensor.dtype).to(tensor.device))


def _shift(projection: "nn.Module", shift: "torch.Tensor", undo: Undo) -> None:
    """Add to the bias of a projection, which need not have one."""
    from torch import nn

    parameters = dict(projection.named_parameters())
    if (bias := parameters.get("bias")) is not None:
        undo.append(functools.partial(bias.copy_, bias.clone()))
        bias.copy_((bias.cpu().double() + shift).to(bias.dtype))
    else:
        weight = parameters["weight"]
        projection.bias = nn.Parameter(shift.to(weight.dtype).to(weight.device), weight.requires_grad)
        undo.append(functools.partial(setattr, projection, "bias", None))


def _scale_bias(projection: "nn.Module", scale: float, undo: Undo) -> None:
    """Scale the bias of a projection that has one."""
    if (bias := dict(projection.named_parameters()).get("bias")) is not None:
        undo.append(functools.partial(bias.copy_, bias.clone()))
        bias.copy_((bias.cpu().double() * scale + 0.0).to(bias.dtype))


def restore(undo: Undo) -> None:
    """Put back exactly what ``prune`` overwrote."""
    import torch

    with torch.no_grad():
        for step in reversed(undo):
            step()


@contextlib.contextmanager
def pruned(model: "nn.Module", units: Json) -> Iterator["nn.Module"]:
    """The model with a unit list applied, restored at the end whatever happens."""
    undo = prune(model, units)
    try:
        yield model
    finally:
        restore(undo)
