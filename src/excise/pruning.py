"""Apply a selection of neurons to a model in memory, undo it, and export the result.

Pruning neuron ``i`` of a layer with factor ``f`` multiplies its whole path by ``f``: with ``f = 0`` (the default)
row ``i`` of every input projection, their biases, and column ``i`` of the output projection become zero; with any
other factor only the column of the output projection is scaled, since scaling both would scale the output by
``f`` squared and move the gate. ``f < 0`` reverses what the neuron writes.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from excise.architectures import architecture, input_projections, neuron_shape, output_projections
from excise.artefacts import Json, read_json
from excise.errors import ExciseError

if TYPE_CHECKING:
    import torch
    from torch import nn


def read_selection(path: str | Path) -> Json:
    """Read a neuron list.

    Raises:
        ExciseError: it is not one, or it names a neuron twice.
    """
    selection = read_json(path)
    try:
        neurons = [(int(row["layer"]), int(row["neuron"])) for row in selection["neurons"]]
        float(selection["factor"])
    except (KeyError, TypeError, ValueError) as error:
        raise ExciseError(f"{path}: not a neuron list (needs factor and neurons: layer, neuron): {error}") from error
    if len(set(neurons)) < len(neurons):
        raise ExciseError(f"{path}: some neuron is listed twice")
    return selection


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


def prune(model: "nn.Module", selection: Json) -> "list[tuple[torch.Tensor, torch.Tensor, int, torch.Tensor]]":
    """Apply a selection in place.

    Args:
        model: a causal language model of a supported family.
        selection: a neuron list (``read_selection``).

    Returns:
        What ``restore`` needs: (tensor, indices, dimension, the old values).

    Raises:
        ExciseError: a neuron lies outside the model (nothing was changed), or in a layer that is offloaded.
    """
    import torch

    layers, width = neuron_shape(model.config)
    factor = float(selection["factor"])
    by_layer: dict[int, list[int]] = {}
    for row in selection["neurons"]:
        if not (0 <= row["layer"] < layers and 0 <= row["neuron"] < width):
            raise ExciseError(
                f"selection names layer {row['layer']}, neuron {row['neuron']}; "
                f"this model has {layers} layers x {width} neurons"
            )
        by_layer.setdefault(row["layer"], []).append(row["neuron"])
    undo = []
    with torch.no_grad():
        for layer, neurons in sorted(by_layer.items()):
            targets = list(_targets(model, layer))
            if any(tensor.is_meta for tensor, _, _ in targets):  # writing to it would change nothing, silently
                raise ExciseError(
                    f"layer {layer} does not fit on the accelerators and is brought there for each pass, so it cannot "
                    "be pruned; take more accelerators, or --device cpu"
                )
            for tensor, dim, blocks in targets if factor == 0 else targets[-1:]:
                index = torch.tensor(
                    [block * width + neuron for block in range(blocks) for neuron in sorted(neurons)],
                    device=tensor.device,
                )
                old = tensor.index_select(dim, index)
                undo.append((tensor, index, dim, old.clone()))
                tensor.index_copy_(dim, index, torch.zeros_like(old) if factor == 0 else old * factor)
    return undo


def restore(undo: "list[tuple[torch.Tensor, torch.Tensor, int, torch.Tensor]]") -> None:
    """Put back exactly what ``prune`` overwrote."""
    import torch

    with torch.no_grad():
        for tensor, index, dim, old in reversed(undo):
            tensor.index_copy_(dim, index, old)


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
    from excise.resources.models import identity, load_model

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
