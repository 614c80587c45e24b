"""Methods that score edges, one file each, loaded by name.

A method that looks at pairs (``MEASURED``) has ``points(steps)``: where gradients are taken, from 0, the corrupted
prompt, to 1, the clean one; and ``RULE``: the rule of LRP that the backward pass follows, or None for plain gradients.
A control (``DRAWN``) has ``draw(stream, seed)``: scores ``[sources, destinations]`` that know no pair.
"""

import importlib
from typing import TYPE_CHECKING, Protocol, cast

from excise.errors import unknown

if TYPE_CHECKING:
    import torch

    from excise.circuits.stream import Stream

MEASURED = ("eap", "eap-ig", "relp", "relp-qk", "relp-ig")
DRAWN = ("random", "weight-magnitude")
METHODS = (*MEASURED, *DRAWN)


class Measured(Protocol):
    """A method that looks at pairs."""

    RULE: str | None

    def points(self, steps: int) -> tuple[float, ...]:
        """Where gradients are taken."""
        ...


class Drawn(Protocol):
    """A control."""

    def draw(self, stream: "Stream", seed: int) -> "torch.Tensor":
        """Scores, float64 ``[sources, destinations]``."""
        ...


def module_name(method: str) -> str:
    """``eap-ig`` -> ``circuits.methods.eap_ig``.

    Raises:
        ExciseError: there is no such method.
    """
    if method not in METHODS:
        raise unknown("method", method, METHODS, where="--method")
    return f"circuits.methods.{method.replace('-', '_')}"


def measured(method: str) -> Measured:
    """Load a method that looks at pairs."""
    return cast(Measured, importlib.import_module(f"excise.{module_name(method)}"))


def drawn(method: str) -> Drawn:
    """Load a control."""
    return cast(Drawn, importlib.import_module(f"excise.{module_name(method)}"))
