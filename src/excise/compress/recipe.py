"""How weights are pruned, and what does not go together; no tensors, so that a plan can be checked."""

from dataclasses import dataclass

from excise.compress import method
from excise.compress.patterns import KeepNofM, Pattern, Share
from excise.errors import ExciseError, unknown

SCOPES = ("all", "attention", "mlp")

SHARES = ("uniform", "owl")
"""How a share is spread over layers."""

RECONSTRUCTIONS = ("none", "obs", "least-squares")
"""What is done to the weights that are kept, after any mask."""


@dataclass(frozen=True)
class Recipe:
    """How weights are pruned.

    Attributes:
        method: name in the registry.
        pattern: which share, or N:M.
        reconstruct: one of ``RECONSTRUCTIONS``.
        seed: of the random control.
    """

    method: str
    pattern: Pattern
    reconstruct: str = "none"
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what does not go together.

        Raises:
            ExciseError: an unknown name, or a solver with a pattern or reconstruction it does not have.
        """
        row = method(self.method)
        if self.reconstruct not in RECONSTRUCTIONS:
            raise unknown("reconstruction", self.reconstruct, RECONSTRUCTIONS, where="--reconstruct")
        if row.solver and isinstance(self.pattern, Share) and self.pattern.group == "layer":
            raise ExciseError(f"--group layer: {self.method} prunes each matrix by itself; choose row or matrix")

    @property
    def needs(self) -> str:
        """What is to be measured of the inputs: ``weights`` and ``seed`` need no calibration."""
        return "gram" if self.reconstruct != "none" else method(self.method).needs


def needs(recipe: Recipe, shares: str) -> str:
    """What is to be measured of the inputs, also where only the spread of the shares asks for it."""
    return "norms" if shares == "owl" and recipe.needs in ("weights", "seed", "relevance") else recipe.needs


def check_scope(scope: str) -> None:
    """Refuse an unknown scope.

    Raises:
        ExciseError: it is unknown.
    """
    if scope not in SCOPES:
        raise unknown("scope", scope, SCOPES, where="--scope")


def check_together(recipe: Recipe, scope: str, *, permute: bool, protects: bool, shares: str = "uniform") -> None:
    """Refuse an unknown scope, and an order of neurons where it does nothing.

    Args:
        recipe: how weights are pruned.
        scope: which maps, one of ``SCOPES``.
        permute: order the neurons first.
        protects: whether a unit list is protected.
        shares: one of ``SHARES``.

    Raises:
        ExciseError: it does not go together.
    """
    check_scope(scope)
    if shares not in SHARES:
        raise unknown("spread of shares", shares, SHARES, where="--shares")
    if shares != "uniform" and not isinstance(recipe.pattern, Share):
        raise ExciseError(f"--shares {shares}: {recipe.pattern} in every layer; only a share can differ by layer")
    if not permute:
        return
    if not isinstance(recipe.pattern, KeepNofM):
        raise ExciseError(f"--permute: {recipe.pattern}; only N:M gains by the order of neurons")
    if scope == "attention" or recipe.method in ("random", "lrp"):
        raise ExciseError(f"--permute: does nothing with --scope {scope}, --method {recipe.method}")
    if protects:
        raise ExciseError("--permute, --protect: a list names neurons by their old places; choose one of the two")
