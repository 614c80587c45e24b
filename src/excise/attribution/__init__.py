"""Attribution methods: what each one is made of. One file per method, and one line in ``attribution.registry``.

A method's file imports nothing heavy at its top: the workflow reads its entry while it plans.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from excise.artefacts import Array
from excise.models.units import UNITS, Axis

if TYPE_CHECKING:
    import torch

    from excise.attribution.batches import Batch

OBJECTIVES = ("last-max", "continuation", "continuation-sum", "contrastive")
"""What a backward pass starts from; see ``attribution.objectives``."""

AGGREGATES = ("signed", "abs")
"""``signed``: a sample's values are added as they are (SparC3, eq. 1); ``abs``: their absolute values are."""

TOKENS = ("all", "not-special")
"""Which tokens of a sample are counted; padding never is."""

NEEDS = ("nothing", "weights", "forward", "backward")
"""What a method reads of a model: nothing but its shape, its weights, forward passes, or backward passes too."""


@dataclass(frozen=True)
class Options:
    """How a method measures.

    Attributes:
        objective: one of ``OBJECTIVES``; methods without a backward pass ignore it.
        aggregate: one of ``AGGREGATES``.
        recompute: keep only the inputs of layers and recompute each layer during the backward pass.
        unit: one of ``models.units.UNITS``.
    """

    objective: str = "continuation"
    aggregate: str = "signed"
    recompute: bool = False
    unit: str = "neuron"


Values = dict[str, "torch.Tensor"]
"""Of a batch: ``[samples, layers, width]`` by name, float64."""

Arrays = dict[str, Array]
"""Sums, means or scores by name."""

Measure = Callable[["Batch"], Values]


@dataclass(frozen=True, kw_only=True)
class Method:
    """What is known of every method.

    Attributes:
        name: as in the configuration; the file is called the same, with underscores.
        label: what it measures, in a few words, for the report.
        needs: one of ``NEEDS``.
        units: the units that it can score.
        packages: installed packages whose version bears on the numbers.
    """

    name: str
    label: str
    needs: str
    units: tuple[str, ...] = UNITS
    packages: tuple[str, ...] = ("torch", "transformers")

    @property
    def module(self) -> str:
        """Its module, as ``excise.digest`` and ``excise.provenance`` want it."""
        return f"attribution.{self.name.replace('-', '_')}"


@dataclass(frozen=True, kw_only=True)
class Measured(Method):
    """A method that measures a model on a reference set.

    Attributes:
        measuring: from a model and options to a context manager that yields a function ``batch -> {name: values}``
            with a value of each sample, ``[samples, layers, width]`` float64. Inside the context the model may be
            patched; afterwards it is as before.
        scores: from the means over samples ``{name: [layers, width]}``, the model folder and the units to one score
            per unit, ``[layers, units]`` float64.
        contrast: from the scores of two reference sets (the arrays of two score files: retain, target) to the pair of
            arrays whose difference, first minus second, is most negative where a unit is most responsible for the
            target.
        squares: the names whose squares are summed too: the scores then have a standard error.
        rows: the names that are kept per sample beside their sum.
        ranks: units may be selected by its scores; otherwise it only supplies means to ablate to.
    """

    measuring: Callable[[Any, Options], AbstractContextManager[Measure]]
    scores: Callable[[Arrays, Path, Axis], Array]
    contrast: Callable[[Arrays, Arrays], tuple[Array, Array]]
    squares: tuple[str, ...] = ()
    rows: tuple[str, ...] = ()
    ranks: bool = True


@dataclass(frozen=True, kw_only=True)
class Control(Method):
    """A control: it looks at no text, and never wins.

    Attributes:
        draw: from a model folder, a seed and the units to one value per unit, ``[layers, units]`` float64; the units
            with the lowest values are removed first.
        seeded: the seed matters, so several draws can be compared.
    """

    draw: Callable[[Path, int, Axis], Array]
    seeded: bool = False


def subtract(retain: Arrays, target: Arrays) -> tuple[Array, Array]:
    """The two mean scores as they are: SparC3's contrast is their difference (eq. 7)."""
    return retain["score"], target["score"]
