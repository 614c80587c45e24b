"""Tables as CSV, and the numbers in them as text."""

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol

from excise.artefacts import replacing
from excise.goal import Budget

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


class Drawn(Protocol):
    """A plot with the table behind it."""

    @property
    def name(self) -> str:
        """What its file is called."""
        ...

    @property
    def columns(self) -> Sequence[str]:
        """Head of its table."""
        ...

    @property
    def rows(self) -> Sequence[Sequence[object]]:
        """Its table."""
        ...


def write_data(folder: Path, plots: Iterable[Drawn]) -> None:
    """Write the data behind plots, a table each."""
    folder.mkdir(parents=True, exist_ok=True)
    for plot in plots:
        write_csv(folder / f"{plot.name}.csv", plot.columns, plot.rows)


def number(value: float | None, digits: int = 2) -> str:
    """A number with thousands separators; a dash where there is none."""
    return NONE if value is None else f"{value:z,.{digits}f}".replace("-", MINUS)


def percent(share: float | None, digits: int = 1, *, signed: bool = False) -> str:
    """A share as a percentage."""
    if share is None:
        return NONE
    return f"{100 * share:{'+' if signed else ''}z,.{digits}f} %".replace("-", MINUS)


def exact_percent(share: float, *, signed: bool = False) -> str:
    """A share that somebody has set, as a percentage without rounding: ``2.5 %``."""
    return f"{100 * share:{'+' if signed else ''},.10g} %".replace("-", MINUS)


def in_words(budget: Budget) -> str:
    """A budget as somebody has set it: ``+5 %``, ``-0.01``."""
    surely = " (whole interval)" if budget.surely else ""
    if budget.relative:
        return exact_percent(budget.limit, signed=True) + surely
    return f"{budget.limit:+g}".replace("-", MINUS) + surely


def plural(word: str) -> str:
    """``windows``, ``queries``."""
    return f"{word[:-1]}ies" if word.endswith("y") else f"{word}s"


def counted(count: int, word: str) -> str:
    """``1 control``, ``3 controls``."""
    return f"{count:,} {word if count == 1 else plural(word)}"


def figure(value: float | None, unit: str, digits: int = 2) -> str:
    """A figure of a metric: a share in per cent, anything else as a number."""
    return percent(value) if unit == "share" else number(value, digits)


def shift(difference: float | None, unit: str, digits: int = 3) -> str:
    """A difference of a metric, signed: points of a share, anything else as a number."""
    if difference is None:
        return NONE
    return points(difference) if unit == "share" else f"{difference:+,.{digits}f}".replace("-", MINUS)


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
