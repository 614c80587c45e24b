"""A model of which one decoder layer is in memory at a time, however deep it is."""

import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM
from transformers.pytorch_utils import Conv1D

from excise.errors import ExciseError
from excise.models.families import architecture
from excise.models.files import read_tensors
from excise.models.loading import described, plain_name
from excise.models.parts import decoder_layers

Call = tuple[tuple[Any, ...], dict[str, Any]]
"""What a layer is called with besides its hidden states."""


class Checkpoint:
    """The tensors of a model folder under their stored names, read one layer at a time.

    Args:
        folder: a model folder.

    Raises:
        ExciseError: the family is not supported or not causal, or the weights are quantised or do not fit config.json.
    """

    def __init__(self, folder: Path) -> None:
        model, self._stored = described(folder)
        family = architecture(model.config)
        if not family.causal:
            raise ExciseError(f"{folder}: {model.config.model_type} is an encoder; compression is for causal models")
        self.folder, self.config = folder, model.config
        stem = family.layers.removeprefix(f"{model.base_model_prefix}.")
        layer = re.compile(rf"{re.escape(stem)}\.(\d+)\.(.+)")
        self._plain = {name: plain_name(model, name) for name in self._stored}
        self._place = {name: match for name, plain in self._plain.items() if (match := layer.fullmatch(plain))}

    def of_layer(self, layer: int) -> dict[str, str]:
        """Stored names of a layer's tensors, by their names inside the layer."""
        return {match[2]: name for name, match in self._place.items() if int(match[1]) == layer}

    def outside(self) -> dict[str, str]:
        """Stored names of all other tensors, by their names without the base model's prefix."""
        return {plain: name for name, plain in self._plain.items() if name not in self._place}

    def read(self, names: dict[str, str]) -> dict[str, Tensor]:
        """The tensors under these stored names, keyed as the names are.

        Raises:
            ExciseError: a file cannot be read.
        """
        keys = {name: key for key, name in names.items()}
        return {keys[name]: tensor for name, tensor in read_tensors({name: self._stored[name] for name in keys})}


def hollow(checkpoint: Checkpoint, dtype: torch.dtype) -> Any:
    """The model in eval mode: all that hidden states need outside its layers is loaded, the layers are empty (meta)."""
    from accelerate import init_empty_weights

    with init_empty_weights(include_buffers=False):  # buffers such as rotary frequencies are computed, not stored
        model = AutoModelForCausalLM.from_config(checkpoint.config, dtype=dtype)
    model.eval().requires_grad_(False)
    there = checkpoint.outside()
    layers, base = f"{architecture(model.config).layers}.", f"{model.base_model_prefix}."
    names = [name for name, _ in model.named_parameters() if name.startswith(base) and not name.startswith(layers)]
    tensors = checkpoint.read({name: there[plain_name(model, name)] for name in names})
    for name in names:
        _put(model, name, tensors[name], dtype, torch.device("cpu"))
    return model


def fill(layer: nn.Module, tensors: dict[str, Tensor], dtype: torch.dtype, device: torch.device) -> None:
    """Put tensors into a layer's parameters; those that the layer does not have (old buffers) are left out."""
    for name, _ in list(layer.named_parameters()):
        _put(layer, name, tensors[name], dtype, device)


def _put(module: nn.Module, name: str, tensor: Tensor, dtype: torch.dtype, device: torch.device) -> None:
    path, _, own = name.rpartition(".")
    owner = module.get_submodule(path)
    owner.register_parameter(own, nn.Parameter(tensor.to(device=device, dtype=dtype), requires_grad=False))
    if own == "weight" and isinstance(owner, Conv1D):  # its forward pass asks for the width, a slice has another
        owner.nf = tensor.shape[1]


def embed(model: Any, windows: Tensor, checkpoint: Checkpoint) -> tuple[Tensor, list[Call]]:
    """The hidden states that enter layer 0, and what each layer is called with besides.

    The model's own forward pass is run with layers that only note their call and hand their input on: so masks,
    positions and rotary embeddings are the model's own, of each layer's type. Windows have one length and no padding,
    so that one window's call serves all.

    Args:
        model: from ``hollow``.
        windows: token ids ``[windows, tokens]``.
        checkpoint: layer 0 is run once, to see whether layers return a tensor or a tuple.

    Returns:
        Hidden states ``[windows, tokens, hidden]``, and one call per layer.
    """
    layers = decoder_layers(model)
    calls: list[Call] = [((), {})] * len(layers)
    entering: list[Tensor] = []
    fill(layers[0], checkpoint.read(checkpoint.of_layer(0)), model.dtype, torch.device("cpu"))
    first = layers[0].forward
    wrapped = False

    def note(number: int) -> Any:
        def forward(hidden: Tensor, *more: Any, **named: Any) -> Any:
            nonlocal wrapped
            calls[number] = (more, named)
            if number == 0:
                if not entering:
                    wrapped = isinstance(first(hidden, *more, **named), tuple)
                entering.append(hidden)
            return (hidden,) if wrapped else hidden

        return forward

    try:
        for number, layer in enumerate(layers):
            layer.forward = note(number)
        with torch.inference_mode():
            for window in windows:
                model.base_model(input_ids=window[None], use_cache=False)
    finally:
        for layer in layers:
            del layer.forward
        layers[0].to("meta")
    return torch.cat(entering), calls


def run_layer(layer: nn.Module, hidden: Tensor, call: Call) -> Tensor:
    """A layer's output hidden states, whether it returns them alone or first in a tuple."""
    more, named = call
    output = layer(hidden, *more, **named)
    states: Tensor = output[0] if isinstance(output, tuple) else output
    return states


def moved(value: Any, device: torch.device) -> Any:
    """A call's tensors on a device, inside tuples and dictionaries too."""
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, dict):
        return {key: moved(one, device) for key, one in value.items()}
    if isinstance(value, tuple | list):
        return type(value)(moved(one, device) for one in value)
    return value
