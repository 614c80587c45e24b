"""Tables as CSV, and the numbers in them as text."""

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

from excise.artefacts import replacing

MINUS = "\N{MINUS SIGN}"
NONE = "\N{EN DASH}"
"""Stands in a cell that has no value."""


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a table; floats in full precision, None as an empty cell."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    with replacing(path) as file:
        file.write(text.getvalue().encode())


def number(value: float | None, digits: int = 2) -> str:
    """A number with thousands separators; a dash where there is none."""
    return NONE if value is None else f"{value:,.{digits}f}".replace("-", MINUS)


def percent(share: float | None, digits: int = 1, *, signed: bool = False) -> str:
    """A share as a percentage."""
    if share is None:
        return NONE
    return f"{100 * share:{'+' if signed else ''},.{digits}f} %".replace("-", MINUS)


def exact_percent(share: float, *, signed: bool = False) -> str:
    """A share that somebody has set, as a percentage without rounding: ``2.5 %``."""
    return f"{100 * share:{'+' if signed else ''},.10g} %".replace("-", MINUS)


def counted(count: int, word: str) -> str:
    """``1 control``, ``3 controls``."""
    return f"{count:,} {word}{'' if count == 1 else 's'}"


def points(difference: float, digits: int = 1) -> str:
    """A difference of shares in percentage points, signed, without the unit."""
    return f"{100 * difference:+.{digits}f}".replace("-", MINUS)


def interval(ends: Sequence[float]) -> str:
    """Two ends in percentage points: ``+3.2 to +4.6``."""
    return " to ".join(map(points, ends))


def p_value(p: float | None) -> str:
    """A p value, never as 0."""
    if p is None:
        return NONE
    return "<\u202f0.001" if p < 0.001 else f"{p:.3f}"
