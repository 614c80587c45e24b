"""A model of which one decoder layer is in memory at a time, however deep it is."""

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from excise.errors import ExciseError
from excise.models.families import architecture
from excise.models.folders import weight_files
from excise.models.loading import load_config
from excise.models.parts import decoder_layers

Call = tuple[tuple[Any, ...], dict[str, Any]]
"""What a layer is called with besides its hidden states."""


class Checkpoint:
    """The tensors of a model folder under their stored names, read one by one.

    Args:
        folder: a model folder.
        model: the model, its weights may be on the meta device.

    Raises:
        ExciseError: a file cannot be read.
    """

    def __init__(self, folder: Path, model: Any) -> None:
        self._files: dict[str, Path] = {}
        for path in weight_files(folder, str(folder)):
            if path.suffix == ".safetensors":
                with _opened(path) as file:
                    self._files |= dict.fromkeys(file.keys(), path)
        self._prefix = f"{model.base_model_prefix}."
        stem = architecture(model.config).layers.removeprefix(self._prefix)
        self._layer = re.compile(rf"{re.escape(stem)}\.(\d+)\.(.+)")

    def bare(self, name: str) -> str:
        """A name without the base model's prefix, which checkpoints have or lack."""
        return name.removeprefix(self._prefix)

    def of_layer(self, layer: int) -> dict[str, str]:
        """Stored names of a layer's tensors, by their names inside the layer."""
        found = {name: self._layer.fullmatch(self.bare(name)) for name in self._files}
        return {match[2]: name for name, match in found.items() if match and int(match[1]) == layer}

    def outside(self) -> dict[str, str]:
        """Stored names of all other tensors, by their bare names."""
        return {bare: name for name in self._files if not self._layer.fullmatch(bare := self.bare(name))}

    def read(self, names: dict[str, str]) -> dict[str, Tensor]:
        """The tensors under these stored names, keyed as the names are.

        Raises:
            ExciseError: a file cannot be read.
        """
        tensors: dict[str, Tensor] = {}
        for path in sorted({self._files[name] for name in names.values()}):
            with _opened(path) as file:
                tensors |= {key: file.get_tensor(name) for key, name in names.items() if self._files[name] == path}
        return tensors


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        with safe_open(str(path), framework="pt") as file:
            yield file
    except (OSError, SafetensorError) as error:
        raise ExciseError(f"{path}: not a readable safetensors file ({error}); fetch or copy it again") from error


def skeleton(folder: Path, dtype: torch.dtype) -> Any:
    """The model of a folder in eval mode: all that is outside its layers is loaded, the layers are empty (meta).

    Raises:
        ExciseError: the family is not supported, the weights are quantised, or a tensor is missing.
    """
    from accelerate import init_empty_weights

    config = load_config(folder)
    if not architecture(config).causal:
        raise ExciseError(f"{folder}: {config.model_type} is an encoder; compression is for causal language models")
    if getattr(config, "quantization_config", None):
        raise ExciseError(f"{folder}: its weights are quantised; compression needs the unquantised model")
    with init_empty_weights(include_buffers=False):  # buffers such as rotary frequencies are computed, not stored
        model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    model.eval().requires_grad_(False)
    checkpoint = Checkpoint(folder, model)
    there = checkpoint.outside()
    stem = f"{architecture(config).layers}."
    prefix = f"{model.base_model_prefix}."  # the head is not needed: hidden states are what calibration wants
    names = [name for name, _ in model.named_parameters() if name.startswith(prefix) and not name.startswith(stem)]
    if missing := [name for name in names if checkpoint.bare(name) not in there]:
        raise ExciseError(f"{folder}: the weights lack {', '.join(missing)}; they do not belong to this config.json")
    tensors = checkpoint.read({name: there[checkpoint.bare(name)] for name in names})
    for name in names:
        _put(model, name, tensors[name], dtype, torch.device("cpu"))
    return model


def fill(layer: nn.Module, tensors: dict[str, Tensor], dtype: torch.dtype, device: torch.device) -> None:
    """Put tensors into a layer's parameters; those that the layer does not have (old buffers) are left out.

    Raises:
        ExciseError: a parameter is missing, or has another shape.
    """
    for name, _ in list(layer.named_parameters()):
        if name not in tensors:
            raise ExciseError(f"the weights lack {name} of a layer; they do not belong to this config.json")
        _put(layer, name, tensors[name], dtype, device)


def _put(module: nn.Module, name: str, tensor: Tensor, dtype: torch.dtype, device: torch.device) -> None:
    shape = module.get_parameter(name).shape
    if tensor.shape != shape:
        raise ExciseError(f"the weights hold {tuple(tensor.shape)} for {name}, config.json promises {tuple(shape)}")
    path, _, own = name.rpartition(".")
    value = nn.Parameter(tensor.to(device=device, dtype=dtype), requires_grad=False)
    module.get_submodule(path).register_parameter(own, value)


def embed(model: Any, windows: Tensor, checkpoint: Checkpoint) -> tuple[Tensor, list[Call]]:
    """The hidden states that enter layer 0, and what each layer is called with besides.

    The model's own forward pass is run with layers that only note their call and hand their input on: so masks,
    positions and rotary embeddings are the model's own, of each layer's type. Windows have one length and no padding,
    so that one window's call serves all.

    Args:
        model: from ``skeleton``.
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
