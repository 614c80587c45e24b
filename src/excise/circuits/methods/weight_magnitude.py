"""A control: an edge's score is the size of the weights at its two ends, whatever the task.

The root mean square of the weights that write (a head's columns of the output projection, the MLP's output projection,
the embedding) times that of the weights that read (a head's rows of a projection, the MLP's input projections, the
head onto the vocabulary).
"""

from typing import TYPE_CHECKING

import torch

from excise.circuits.graph import SLOTS
from excise.models.parts import input_projections

if TYPE_CHECKING:
    from excise.circuits.stream import Stream


def draw(stream: "Stream", seed: int) -> torch.Tensor:  # noqa: ARG001 (the same for every control)
    """Positive scores, float64 ``[sources, destinations]``."""
    model = stream.model
    writers = [_size(model.get_input_embeddings().weight, ())[None]]
    readers = []
    for parts, inputs in zip(stream.layers, input_projections(model), strict=True):
        columns = stream.weight(parts.output).reshape(-1, stream.heads, stream.head_dim)
        writers += [_size(columns, (0, 2)), _size(parts.mlp_output.weight, ())[None]]
        for slot in SLOTS:
            rows = _size(stream.of_heads(slot, stream.weight(parts.projections[slot])), (1, 2))
            readers.append(rows.repeat_interleave(stream.heads // len(rows)))
        readers.append(_size(torch.cat([module.get_parameter("weight").flatten() for module in inputs]), ())[None])
    readers.append(_size(model.get_output_embeddings().weight, ())[None])
    return torch.outer(torch.cat(writers), torch.cat(readers)) * stream.graph.edges


def _size(weight: torch.Tensor, dimensions: tuple[int, ...]) -> torch.Tensor:
    """Root mean square over some dimensions, or over all."""
    squares = weight.detach().cpu().double().square()
    return (squares.mean(dimensions) if dimensions else squares.mean()).sqrt()
