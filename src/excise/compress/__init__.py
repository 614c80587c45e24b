"""Compression of weights: one method per file, found by name.

A method is a *score* or a *solver*, a pure function on one weight matrix ``[outputs, inputs]``:

- ``score(weight, ...) -> [outputs, inputs]``, float32 or better: the pattern prunes the weights with the lowest scores.
- ``solve(weight, gram, pattern, protect) -> [outputs, inputs]``: the new weights, which keep the pattern.

What a method needs besides is ``needs``: nothing but the weights, a seed, relevance that was measured before, the norms
of the inputs or their Gram matrix (``compress.inputs``).
"""

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, cast

from excise.errors import unknown

if TYPE_CHECKING:  # the configuration reads the registry, and needs no torch
    from torch import Tensor

    from excise.compress.patterns import Pattern

Needs = Literal["weights", "seed", "relevance", "norms", "gram"]


@dataclass(frozen=True)
class Method:
    """One row of the registry.

    Attributes:
        module: file beside this one.
        needs: what it is given besides the weights.
        solver: it returns new weights, not scores.
        group: weights are compared within each ``row`` or the whole ``matrix``, as its paper does.
    """

    module: str
    needs: Needs
    solver: bool
    group: str


METHODS: dict[str, Method] = {
    "random": Method("random", "seed", solver=False, group="row"),
    "magnitude": Method("magnitude", "weights", solver=False, group="matrix"),
    "lrp": Method("lrp", "relevance", solver=False, group="row"),
    "wanda": Method("wanda", "norms", solver=False, group="row"),
    "ria": Method("ria", "norms", solver=False, group="matrix"),
    "clearcut": Method("clearcut", "norms", solver=False, group="row"),
    "sparsegpt": Method("sparsegpt", "gram", solver=True, group="matrix"),
    "admm": Method("admm", "gram", solver=True, group="matrix"),
    "alps": Method("alps", "gram", solver=True, group="matrix"),
}


class Scorer(Protocol):
    """A module with a score."""

    def score(self, weight: "Tensor", *given: object) -> "Tensor":
        """One score per weight; the lowest are pruned first."""
        ...


class Solver(Protocol):
    """A module with a solver."""

    def solve(self, weight: "Tensor", gram: "Tensor", pattern: "Pattern", protect: "Tensor | None" = None) -> "Tensor":
        """New weights that keep the pattern."""
        ...


def method(name: str) -> Method:
    """The registry's row.

    Raises:
        ExciseError: there is no such method.
    """
    if name not in METHODS:
        raise unknown("compression method", name, METHODS, where="--method")
    return METHODS[name]


def module_name(name: str) -> str:
    """``"wanda"`` -> ``"compress.wanda"``, as ``excise.digest`` and ``excise.provenance`` want it."""
    return f"compress.{method(name).module}"


def scorer(name: str) -> Scorer:
    """Load a method that scores."""
    return cast(Scorer, importlib.import_module(f"excise.{module_name(name)}"))


def solver(name: str) -> Solver:
    """Load a method that solves."""
    return cast(Solver, importlib.import_module(f"excise.{module_name(name)}"))
