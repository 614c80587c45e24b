"""2:4 weights in the one format that a kernel of PyTorch reads: which maps have the pattern, and conversion on CUDA."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from excise.compress.change import turned
from excise.compress.streaming import Checkpoint, hollow
from excise.errors import ExciseError
from excise.models.parts import decoder_layers, linear_maps

KEPT, SIZE = 2, 4
CAPABILITY = (8, 0)
"""The first GPUs with sparse tensor cores: Ampere."""


def breaks(weight: Tensor) -> int:
    """Groups of four consecutive inputs with more than two weights that are not zero; a remainder is one group too.

    Args:
        weight: ``[outputs, inputs]``.
    """
    short = -weight.shape[1] % SIZE
    groups = nn.functional.pad(weight != 0, (0, short)).reshape(weight.shape[0], -1, SIZE)
    return int((groups.sum(-1) > KEPT).sum()) + (weight.shape[0] if short else 0)


def maps_of(folder: Path) -> Iterator[tuple[int, str, int]]:
    """(layer, path, ``breaks``) of every linear map of a model folder, one layer in memory at a time.

    Raises:
        ExciseError: it is no model folder that excise knows.
    """
    checkpoint = Checkpoint(folder)
    model = hollow(checkpoint, torch.float32)
    for layer in range(len(decoder_layers(model))):
        stored = checkpoint.of_layer(layer)
        for path, part in linear_maps(model, layer).items():
            tensor = checkpoint.read({f"{path}.weight": stored[f"{path}.weight"]})[f"{path}.weight"]
            yield layer, path, breaks(turned(part, tensor))


def convert(model: Any, places: set[tuple[int, str]]) -> None:
    """Put the weights of these maps, (layer, path), into PyTorch's semi-structured format.

    Args:
        model: on a CUDA device, in bfloat16.
        places: maps that keep 2 of 4.

    Raises:
        ExciseError: a map is stored inputs first, or PyTorch has no kernel for its shape, dtype or device.
    """
    for layer, path in sorted(places):
        part = linear_maps(model, layer)[path]
        where = f"layer {layer}, {path}"
        if isinstance(part, Conv1D):
            raise ExciseError(f"{where}: weights are stored inputs first (Conv1D), and no kernel reads that")
        try:
            sparse = torch.sparse.to_sparse_semi_structured(part.get_parameter("weight").detach())
        except (RuntimeError, ValueError, NotImplementedError) as error:
            raise ExciseError(f"{where}: PyTorch cannot convert it: {error}") from error
        part.register_parameter("weight", nn.Parameter(sparse, requires_grad=False))


def require_gpu() -> None:
    """Refuse a machine whose GPU has no sparse tensor cores.

    Raises:
        ExciseError: it has none, or no GPU at all.
    """
    if not torch.cuda.is_available():
        raise ExciseError(
            "2:4 kernels need an NVIDIA GPU of compute capability 8.0 or higher; PyTorch sees no GPU. On a CPU a 2:4 "
            "model is as fast as before; --check-only checks its pattern. Faster everywhere: excise slice"
        )
    if (found := torch.cuda.get_device_capability()) < CAPABILITY:
        raise ExciseError(
            f"2:4 kernels need compute capability 8.0 or higher; {torch.cuda.get_device_name()}: {found[0]}.{found[1]}"
        )
