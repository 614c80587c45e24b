"""Some modules of a model with their weights, the others without: only what is looked at costs memory."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from excise.errors import unknown
from excise.models.files import read_tensors
from excise.models.loading import DTYPES, described, plain_name

if TYPE_CHECKING:
    from torch import nn


def load_modules(
    folder: str | Path, wanted: "Callable[[Any], Iterable[nn.Module]]", *, dtype: str = "float32", device: str = "cpu"
) -> Any:
    """A model of which some modules have their weights; the others are on the device ``meta`` and cannot be run.

    Args:
        folder: a Hugging Face folder with config.json and safetensors.
        wanted: the modules that are needed, of the model that it is given.
        dtype: one of ``DTYPES``.
        device: where their weights go.

    Raises:
        ExciseError: as ``load_model``.
    """
    import torch

    if dtype not in DTYPES:
        raise unknown("dtype", dtype, DTYPES)
    model, found = described(folder)
    paths = {module: path for path, module in model.named_modules()}
    on_disk = {plain_name(model, name): name for name in found}
    names: dict[Any, list[str]] = {}  # of a tensor, which tied modules share
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(parameter, []).append(name)
    for module in dict.fromkeys(wanted(model)):
        weights = {}
        for name, parameter in module.named_parameters():
            # Its own name first: a head that its configuration ties may yet be stored with other values.
            own = [f"{paths[module]}.{name}", *names[parameter]]
            weights[name] = next(on_disk[plain] for one in own if (plain := plain_name(model, one)) in on_disk)
        read = dict(read_tensors({disk: found[disk] for disk in weights.values()}))
        state = {name: read[disk].to(device, getattr(torch, dtype), copy=True) for name, disk in weights.items()}
        module.load_state_dict(state, assign=True)
    return model.eval().requires_grad_(False)
