"""How many weights are pruned, and of which groups.

A *share* prunes ``floor(share x size)`` weights of every comparison group: a row, a matrix, or all maps of a layer.
*N:M* keeps N of every M consecutive inputs of a row (N = kept, as NVIDIA, ALPS and MaskLLM count; Wanda, SparseGPT and
RIA count the pruned ones).
"""

from dataclasses import dataclass
from fractions import Fraction

from excise.errors import ExciseError, unknown

GROUPS = ("row", "matrix", "layer")


@dataclass(frozen=True)
class Share:
    """Prune this share of every comparison group (one of ``GROUPS``); exact, hence a fraction."""

    share: Fraction
    group: str

    def __str__(self) -> str:
        return f"{float(self.share):g} of each {self.group} pruned"

    @property
    def pruned(self) -> Fraction:
        """Share of the weights that is pruned."""
        return self.share

    @property
    def name(self) -> str:
        """As part of a path: ``0.5``."""
        return f"{float(self.share):g}"


@dataclass(frozen=True)
class KeepNofM:
    """Keep ``kept`` of every ``size`` consecutive inputs of each row."""

    kept: int
    size: int

    def __str__(self) -> str:
        return f"{self.kept} of {self.size} kept"

    @property
    def pruned(self) -> Fraction:
        """Share of the weights that is pruned."""
        return 1 - Fraction(self.kept, self.size)

    @property
    def name(self) -> str:
        """As part of a path: ``2of4``."""
        return f"{self.kept}of{self.size}"


Pattern = Share | KeepNofM


def parse(text: str, group: str) -> Pattern:
    """``"0.5"`` or ``"50%"``: a share of each group; ``"2:4"``: two of four kept.

    Args:
        text: the pattern.
        group: one of ``GROUPS``; N:M has groups of its own.

    Raises:
        ExciseError: it is neither, or out of range.
    """
    if group not in GROUPS:
        raise unknown("comparison group", group, GROUPS, where="--group")
    kept, colon, size = text.partition(":")
    try:
        if colon:
            pattern: Pattern = KeepNofM(int(kept), int(size))
        else:
            pattern = Share(Fraction(text.removesuffix("%")) / (100 if text.endswith("%") else 1), group)
    except (ValueError, ZeroDivisionError):
        raise ExciseError(f"--pattern {text!r}: must be a share to prune (0.5, 50%) or N:M with N kept (2:4)") from None
    if not 0 < pattern.pruned < 1 or (isinstance(pattern, KeepNofM) and pattern.kept < 1):
        raise ExciseError(f"--pattern {text!r}: must prune some weights and keep some: 0 < share < 1, 0 < N < M")
    return pattern


def check_divides(pattern: Pattern, width: int, name: str) -> None:
    """Refuse N:M on a map whose number of inputs is no multiple of M.

    Raises:
        ExciseError: it is none.
    """
    if isinstance(pattern, KeepNofM) and width % pattern.size:
        raise ExciseError(
            f"--pattern {pattern.kept}:{pattern.size}: {name} has {width} inputs, which {pattern.size} does not "
            "divide. Leave this map out (--scope), or choose another pattern."
        )
