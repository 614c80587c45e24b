"""Apply a selection of neurons to a model in memory, and undo it.

The activation ``a`` of a selected neuron becomes ``c + f (a - c)``: of its distance from a ablation ``c``, zero or the
neuron's mean activation, the share ``f`` remains, its scale. ``f = 0`` is zero ablation or mean ablation; a smaller
``f`` than 1 dampens, ``f < 0`` reverses. The output projection ``W a + b`` does it exactly, on any input: column ``i``
of ``W`` is scaled by ``f``, and ``(1 - f) c`` times the old column is added to ``b``. Where ``f = 0`` nothing reads the
neuron's input rows any more, and they become zero too.
"""

import contextlib
import functools
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from excise.artefacts import Json, read_json
from excise.errors import ExciseError, unknown
from excise.models.families import architecture, neuron_shape
from excise.models.parts import input_projections, output_projections

if TYPE_CHECKING:
    import torch
    from torch import nn

ABLATIONS = ("zero", "mean")
"""What a neuron is scaled about."""

LARGEST = 10**9
"""Factors and means beyond it are mistakes; the weights that come of them need not be finite in float32."""

Undo = list[Callable[[], object]]
"""Steps that put back what was overwritten; the last one comes first."""


def read_selection(path: str | Path) -> Json:
    """Read a neuron list, and check all of it that is used later.

    Raises:
        ExciseError: it is not one; the message names the row (counted from 1), the key, and what is allowed.
    """
    selection = read_json(path)
    where = f"{path}: not a neuron list"
    meta = _checked(selection, "meta", where, "an object")
    _checked(meta, "model", f"{where}: meta", "an object")
    if meta.get("references") is not None:
        sets = _checked(meta, "references", f"{where}: meta", "an object")
        for key in ("target", "retain"):
            one = _checked(sets, key, f"{where}: meta.references", "an object")
            _checked(one, "id", f"{where}: meta.references.{key}", "text")
    for key in ("name", "method"):
        _checked(selection, key, where, "text")
    sizes = [_checked(selection, key, where, "a whole number", 1, LARGEST) for key in ("layers", "neurons_per_layer")]
    by_row = selection.get("scale") == "expertise"
    if not by_row:
        _checked(selection, "scale", where, "'expertise' or a number", -LARGEST, LARGEST)
    if (ablation := selection.get("ablation", "zero")) not in ABLATIONS:
        raise unknown("ablation", ablation, ABLATIONS, where=str(path))
    if not _checked(selection, "neurons", where, "a list"):
        raise ExciseError(f"{where}: neurons is empty; must have a row or more")
    seen: dict[tuple[int, int], int] = {}
    for number, row in enumerate(selection["neurons"], 1):
        here = f"{where}: row {number}"
        if not isinstance(row, dict):
            raise ExciseError(f"{here} is {_short(row)}; must be an object with layer and neuron")
        layer, neuron = (
            _checked(row, key, here, "a whole number", 0, size - 1)
            for key, size in zip(("layer", "neuron"), sizes, strict=True)
        )
        if by_row:
            _checked(row, "scale", here, "a number", -LARGEST, LARGEST)
        elif "scale" in row:
            raise ExciseError(f"{here} has a scale of its own, which only a list with scale 'expertise' may have")
        if ablation == "mean":
            _checked(row, "mean", here, "a number", -LARGEST, LARGEST)
        if (first := seen.setdefault((layer, neuron), number)) != number:
            raise ExciseError(f"{here}: layer {layer}, neuron {neuron} is listed twice, first in row {first}")
    return selection


KINDS: dict[str, tuple[type, ...]] = {
    "an object": (dict,),
    "a list": (list,),
    "text": (str,),
    "a whole number": (int,),
    "a number": (int, float),
    "'expertise' or a number": (int, float),
}
"""What a key of a neuron list may hold."""


def _checked(holder: Json, key: str, where: str, kind: str, least: int = 0, most: int = 0) -> Any:
    """The value of a key, which must be of a kind, and numbers from ``least`` to ``most``."""
    allowed = f"{kind} from {least} to {most}" if "number" in kind else kind
    if key not in holder:
        raise ExciseError(f"{where}: {key} is missing; must be {allowed}")
    value = holder[key]
    if type(value) not in KINDS[kind] or ("number" in kind and not least <= value <= most):
        raise ExciseError(f"{where}: {key} is {_short(value)}; must be {allowed}")
    return value


def _short(value: object) -> str:
    return json.dumps(value)[:60]


def intervention(selection: Json, row: Json) -> tuple[float, float]:
    """(scale, ablation) of one neuron of a list.

    A list has one scale for all neurons, or one in each row (``scale: expertise``). Lists made before there was a
    ablation do not name it: it is zero.
    """
    scale = row["scale"] if selection["scale"] == "expertise" else selection["scale"]
    return float(scale), float(row["mean"]) if selection.get("ablation") == "mean" else 0.0


def _targets(model: "nn.Module", layer: int) -> Iterator[tuple["torch.Tensor", int, int]]:
    """The tensors of a layer that belong to neurons: (tensor, dimension, number of blocks along it); output last."""
    family = architecture(model.config)
    row, column = (1, 0) if family.transposed else (0, 1)
    for projection in input_projections(model)[layer]:
        parameters = dict(projection.named_parameters())
        yield parameters["weight"], row, family.fused
        if "bias" in parameters:
            yield parameters["bias"], 0, family.fused
    yield output_projections(model)[layer].get_parameter("weight"), column, 1


def prune(model: "nn.Module", selection: Json) -> Undo:
    """Apply a selection in place.

    An output projection that has no bias gets one where a neuron's mean has to be kept.

    Args:
        model: a causal language model of a supported family.
        selection: a neuron list (``read_selection``).

    Returns:
        What ``restore`` needs.

    Raises:
        ExciseError: a neuron lies outside the model, or in a layer that is offloaded; nothing was changed.
    """
    import torch

    layers, width = neuron_shape(model.config)
    by_layer: dict[int, list[tuple[int, float, float]]] = {}
    for row in selection["neurons"]:
        if not (0 <= row["layer"] < layers and 0 <= row["neuron"] < width):
            raise ExciseError(
                f"selection names layer {row['layer']}, neuron {row['neuron']}; "
                f"this model has {layers} layers x {width} neurons"
            )
        by_layer.setdefault(row["layer"], []).append((row["neuron"], *intervention(selection, row)))
    targets = {layer: list(_targets(model, layer)) for layer in sorted(by_layer)}
    for layer, tensors in targets.items():
        if any(tensor.is_meta for tensor, _, _ in tensors):  # writing to it would change nothing, silently
            raise ExciseError(
                f"layer {layer} does not fit on the accelerators and is brought there for each pass, so it cannot "
                "be pruned; take more accelerators, or --device cpu"
            )
    undo: Undo = []
    with torch.no_grad():
        for layer, tensors in targets.items():
            rows = sorted(by_layer[layer])
            neurons = [neuron for neuron, _, _ in rows]
            scale, ablation = torch.tensor([row[1:] for row in rows], dtype=torch.float64).unbind(1)
            weight, dim, _ = tensors[-1]
            columns = _at(weight, dim, neurons).cpu().double()
            if ablation.any():
                shift = torch.tensordot(columns, (1 - scale) * ablation, dims=([dim], [0]))
                _shift(output_projections(model)[layer], shift, undo)
            scaled = columns * (scale if dim == 1 else scale[:, None]) + 0.0  # no -0
            _write(weight, dim, neurons, scaled, undo)
            silent = [neuron for neuron, kept, _ in rows if kept == 0]
            for tensor, dim, blocks in tensors[:-1] if silent else ():
                stacked = [block * width + neuron for block in range(blocks) for neuron in silent]
                _write(tensor, dim, stacked, torch.zeros_like(_at(tensor, dim, stacked)), undo)
    return undo


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


def restore(undo: Undo) -> None:
    """Put back exactly what ``prune`` overwrote."""
    import torch

    with torch.no_grad():
        for step in reversed(undo):
            step()


@contextlib.contextmanager
def pruned(model: "nn.Module", selection: Json) -> Iterator["nn.Module"]:
    """The model with a selection applied, restored at the end whatever happens."""
    undo = prune(model, selection)
    try:
        yield model
    finally:
        restore(undo)


def load_variant(folder: str | Path, selection_path: str | Path | None, **options: Any) -> tuple[Any, Json | None]:
    """A model with a selection applied, or the model itself: what evaluation stages open.

    Args:
        folder: the model folder.
        selection_path: a neuron list, or None for the unpruned model.
        options: dtype and device, as for ``load_model``.

    Raises:
        ExciseError: the neuron list was made for another model.
    """
    from excise.models.loading import identity, load_model

    model = load_model(folder, **options)
    if selection_path is None:
        return model, None
    selection = read_selection(selection_path)
    check_fits(selection, identity(folder, "any")["fingerprint"], where=str(selection_path))
    prune(model, selection)
    return model, selection


def check_fits(selection: Json, fingerprint: str, *, where: str) -> None:
    """Refuse a neuron list that was made for other weights.

    Raises:
        ExciseError: the fingerprints differ.
    """
    made_for = selection.get("meta", {}).get("model", {})
    if made_for.get("fingerprint") != fingerprint:
        other = f"{made_for.get('id')!r} (weights {str(made_for.get('fingerprint'))[:12]})"
        raise ExciseError(
            f"{where}: this neuron list was made for {other}, "
            f"not for the model given (weights {fingerprint[:12]}). Neuron numbers mean nothing in other weights."
        )
