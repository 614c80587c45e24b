"""The weights of each layer's neurons, streamed from a model folder without building the model."""

import re
from collections.abc import Iterator
from pathlib import Path

import torch

from excise.errors import ExciseError
from excise.models.families import architecture, neuron_shape
from excise.models.files import opened, stored
from excise.models.loading import load_config


def neuron_weights(folder: Path) -> Iterator[tuple[list[torch.Tensor], torch.Tensor]]:
    """Layer by layer: the input weights of the neurons, and their output weights.

    Args:
        folder: a Hugging Face folder with config.json and safetensors.

    Yields:
        ``([neurons, hidden], ...)`` for each input projection (gate and up are two, also where the family stores
        them as one), and ``[hidden, neurons]``.

    Raises:
        ExciseError: a tensor is missing or has another shape than the configuration says.
    """
    config = load_config(folder)
    family = architecture(config)
    layers, neurons = neuron_shape(config)
    files = {name: tensor.file for name, tensor in stored(folder).items()}
    listname = family.layers.rpartition(".")[2]

    def weight(layer: int, projection: str) -> torch.Tensor:
        # Folders saved from the bare model lack the prefix of the causal one.
        pattern = re.compile(rf"(^|\.){listname}\.{layer}\.{re.escape(projection)}\.weight$")
        names = [name for name in files if pattern.search(name)]
        if len(names) != 1:
            raise ExciseError(f"{folder}: expected one weight of layer {layer}, {projection}, found {names or 'none'}")
        with opened(files[names[0]]) as file:
            tensor: torch.Tensor = file.get_tensor(names[0])
        return tensor.T if family.transposed else tensor

    for layer in range(layers):
        rows = [block for path in family.inputs for block in weight(layer, path).chunk(family.fused)]
        columns = weight(layer, family.output)
        for tensor, dimension in [*((row, 0) for row in rows), (columns, 1)]:
            if tensor.shape[dimension] != neurons:
                raise ExciseError(f"{folder}: layer {layer} has {tensor.shape[dimension]} neurons, not {neurons}")
        yield rows, columns
