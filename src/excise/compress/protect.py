"""Weights that may not be pruned: those that make the units of a unit list, and those that read them."""

from typing import Any

import torch
from torch import Tensor

from excise.artefacts import Json
from excise.edits.unit_list import place
from excise.models.families import architecture, attention_rows, head_shape


def protected(units: Json, config: Any, shapes: dict[str, tuple[int, int]], layer: int) -> dict[str, Tensor]:
    """The protected weights of a layer's maps.

    A neuron: its rows of the input projections, its column of the output projection. A head: the rows of its queries,
    those of the keys and values that it reads (shared with the other heads of its group), its columns of the
    attention's output projection. ``mlp``, ``attention``, ``layer``: all of their maps.

    Args:
        units: a unit list.
        config: of the model.
        shapes: ``(outputs, inputs)`` of each map, by path.
        layer: number of the layer.

    Returns:
        For each map that has any: bool ``[outputs, inputs]``, True where a weight may not be pruned.
    """
    family, unit = architecture(config), units["unit"]
    masks = {path: torch.zeros(shape, dtype=torch.bool) for path, shape in shapes.items()}
    mlp = {*family.inputs, family.output}

    def rows(path: str, numbers: list[int]) -> None:
        if path in masks:
            masks[path][numbers] = True

    def columns(path: str, numbers: list[int]) -> None:
        if path in masks:
            masks[path][:, numbers] = True

    for row in units["rows"]:
        at, index = place(row, unit)
        if at != layer:
            continue
        if unit == "neuron":
            columns(family.output, [index])
            width = units["units_per_layer"]
            for path in family.inputs:
                rows(path, [index + block * width for block in range(family.fused)])
        elif unit == "head":
            _, heads, grouped, size = head_shape(config)
            columns(family.attention.output, list(range(index * size, (index + 1) * size)))
            for name, made in attention_rows(config).items():
                rows(made.path, list(made.heads[index if name == "query" else index * grouped // heads]))
        else:
            for path, mask in masks.items():
                mask |= unit == "layer" or unit == ("mlp" if path in mlp else "attention")
    return {path: mask for path, mask in masks.items() if mask.any()}
