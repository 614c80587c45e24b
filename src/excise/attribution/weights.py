"""The weights of each layer's units, streamed from a model folder without building the model."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from excise.errors import ExciseError
from excise.models.families import architecture
from excise.models.files import opened, stored
from excise.models.loading import load_config
from excise.models.units import Axis


@dataclass(frozen=True)
class SiteWeights:
    """The weights of the channels of one output projection.

    Attributes:
        rows: of the MLP's input projections, ``[neurons, hidden]`` each (gate and up are two, also where the family
            stores them as one); none for attention, where keys and values may be shared by several heads.
        columns: of the output projection, ``[hidden, channels]``.
    """

    rows: list[torch.Tensor]
    columns: torch.Tensor


def channel_weights(folder: Path, units: Axis) -> Iterator[list[SiteWeights]]:
    """Layer by layer the weights of the units, by output projection.

    Args:
        folder: a Hugging Face folder with config.json and safetensors.
        units: whose.

    Raises:
        ExciseError: a tensor is missing or has another shape than the configuration says.
    """
    family = architecture(load_config(folder))
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

    for layer in range(units.layers):
        found = []
        for site, channels in units.sites:
            inputs = family.inputs if site == family.output else ()
            rows = [block for name in inputs for block in weight(layer, name).chunk(family.fused)]
            columns = weight(layer, site)
            for tensor, dimension in [*((row, 0) for row in rows), (columns, 1)]:
                if tensor.shape[dimension] != channels:
                    raise ExciseError(
                        f"{folder}: layer {layer}, {site} has {tensor.shape[dimension]} channels, not {channels}"
                    )
            found.append(SiteWeights(rows, columns))
        yield found
