"""Attribution methods, one file each, loaded by name; adding a method is adding its file.

A method that measures a model on a corpus (``MEASURED``) is a module with

- ``measuring(model, options)``: a context manager that yields a function ``batch -> {name: values}``, where
  ``values`` is a float64 tensor ``[samples, layers, width]`` of what each sample of the batch contributes.
  Inside the context the model may be patched; afterwards it is as before.
- ``SQUARES``: the names whose squares are summed too; ``ROWS``: the names that are kept per sample, not summed.
- ``neuron_scores(means, model_folder)``: from the means over samples ``{name: [layers, width]}`` to one score a
  neuron, ``[layers, neurons]`` float64.
- ``contrast(general, behaviour)``: from the neuron scores of two corpora (the tensors of two score files) to the
  pair of tensors whose difference (first minus second) is most negative where a neuron is most responsible for the
  behaviour.
- ``PACKAGES``: the installed packages whose version bears on the numbers.

A control that needs no corpus (``DRAWN``) is a module with ``draw(model_folder, seed) -> [layers, neurons]``: the
neurons with the lowest values are removed first.
"""

import importlib
import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

from excise.errors import unknown

if TYPE_CHECKING:
    import torch
    from torch import nn

    from excise.attribution.batches import Batch


def _methods(name: str, value: str = "") -> tuple[str, ...]:
    """The files beside this one that define ``name``: found by reading, for importing them would load torch."""
    defines = re.compile(rf"^(def {name}\(|{name} = {value})", re.MULTILINE)
    files = sorted(Path(__file__).parent.glob("*.py"))
    return tuple(path.stem.replace("_", "-") for path in files if defines.search(path.read_text(encoding="utf-8")))


MEASURED = _methods("measuring")
DRAWN = _methods("draw")
WITH_ERROR = _methods("SQUARES", value=r'\("')
"""Methods whose scores have a standard error, which the standardised contrast needs."""

OBJECTIVES = ("last-max", "continuation", "continuation-sum", "contrastive")
"""What a backward pass starts from; see ``attribution.objectives``."""

AGGREGATES = ("signed", "abs")
"""``signed``: a sample's values are added as they are (SparC3, eq. 1); ``abs``: their absolute values are."""

TOKENS = ("all", "not-special")
"""Which tokens of a sample are counted; padding never is."""


@dataclass(frozen=True)
class Options:
    """How a method measures.

    Attributes:
        objective: one of ``OBJECTIVES``; methods without a backward pass ignore it.
        aggregate: one of ``AGGREGATES``.
        recompute: keep only the inputs of layers and recompute each layer during the backward pass.
    """

    objective: str = "continuation"
    aggregate: str = "signed"
    recompute: bool = False


Values = dict[str, "torch.Tensor"]


class Measured(Protocol):
    """The interface of a method that measures a model on a corpus; see the package's docstring."""

    SQUARES: tuple[str, ...]
    ROWS: tuple[str, ...]
    BACKWARD: bool
    PACKAGES: tuple[str, ...]

    def measuring(self, model: "nn.Module", options: Options) -> AbstractContextManager[Callable[["Batch"], Values]]:
        """Yield what measures one batch."""
        ...

    def neuron_scores(self, means: Values, model_folder: Path) -> "torch.Tensor":
        """One score a neuron."""
        ...

    def contrast(self, general: Values, behaviour: Values) -> tuple["torch.Tensor", "torch.Tensor"]:
        """What is subtracted from what."""
        ...


class Drawn(Protocol):
    """The interface of a control that needs no corpus."""

    def draw(self, model_folder: Path, seed: int) -> "torch.Tensor":
        """One value a neuron; lowest first."""
        ...


def module_name(method: str) -> str:
    """``"lrp-cp"`` -> ``"attribution.lrp_cp"``, as ``excise.digest`` and ``excise.provenance`` want it."""
    return f"attribution.{method.replace('-', '_')}"


def measured(method: str) -> Measured:
    """Load a method that measures.

    Raises:
        ExciseError: there is no such method.
    """
    if method not in MEASURED:
        raise unknown("method", method, MEASURED)
    return cast(Measured, importlib.import_module(f"excise.{module_name(method)}"))


def drawn(method: str) -> Drawn:
    """Load a control.

    Raises:
        ExciseError: there is no such control.
    """
    if method not in DRAWN:
        raise unknown("control", method, DRAWN)
    return cast(Drawn, importlib.import_module(f"excise.{module_name(method)}"))
