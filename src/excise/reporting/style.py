"""How every plot looks, and how it becomes a file whose bytes depend on nothing but the data.

Colours are those of Okabe and Ito (2008), told apart by people with any common colour vision; every series also has a
marker of its own, so that a print in grey says the same.
"""

import io
from collections.abc import Callable
from typing import Any

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from excise.config import BASELINE
from excise.reporting.summary import Row, Summary

GREY, INK = "#8c8c8c", "#222222"
LOWER, HIGHER = "#0072b2", "#d55e00"

COLOURS = {
    "lrp": "#0072b2",
    "lrp-cp": "#56b4e9",
    "embedding": "#0072b2",
    "layers": "#e69f00",
    "static": "#009e73",
    "lrp-abs-weights": "#e69f00",
    "wanda": "#d55e00",
    "gradient": "#009e73",
    "activation": "#f0e442",
    "aura": "#cc79a7",
    "sparsegpt": "#009e73",
    "alps": "#0072b2",
    "admm": "#56b4e9",
    "ria": "#cc79a7",
    "clearcut": "#e69f00",
    "slice": "#f0e442",
    "low-rank": "#d55e00",
}
"""Colour of a method; controls are grey, others dark."""

MARKERS = "os^Dv<>Ph8dHp"

STYLE = {
    "svg.hashsalt": "excise",
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": INK,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": "#e8e8e8",
    "grid.linewidth": 0.8,
    "hatch.linewidth": 1.0,
    "text.parse_math": False,  # names are the user's, and a $ in one is a dollar
    "legend.frameon": False,
    "legend.fontsize": 9,
    "savefig.dpi": 200,
}

BESIDE = {"loc": "center left", "bbox_to_anchor": (1.01, 0.5)}
"""A legend to the right of the axes."""


def render(draw: Callable[..., Figure], *arguments: object, kind: str = "svg") -> bytes:
    """Call a plot function and return the picture.

    Args:
        draw: a function that returns a figure.
        arguments: passed to it.
        kind: ``svg`` or ``png``.
    """
    buffer = io.BytesIO()
    with mpl.rc_context(STYLE):
        figure = draw(*arguments)
        FigureCanvasAgg(figure)
        metadata = {"Date": None} if kind == "svg" else {"Software": None}
        figure.savefig(buffer, format=kind, metadata=metadata, bbox_inches="tight", facecolor="white")
    return buffer.getvalue()


def series(summary: Summary) -> dict[str, tuple[str, str]]:
    """Colour and marker of each series in the table; series of one method share the colour."""
    found: dict[str, tuple[str, str]] = {}
    for row in summary.variants:
        if row.about.kind != BASELINE and series_of(row) not in found:
            colour = colour_of(row)
            found[series_of(row)] = (colour, MARKERS[len(found) % len(MARKERS)])
    return found


def colour_of(row: Row) -> str:
    """The colour of a variant's method."""
    return GREY if row.about.kind == "control" else COLOURS.get(row.about.method or "", INK)


def series_of(row: Row) -> str:
    """The series that a variant belongs to; one that belongs to none is its own."""
    return row.about.series or row.variant


def look(colour: str, marker: str) -> dict[str, Any]:
    """Options of a mark: filled with a dark edge; hollow for controls, which are grey."""
    hollow = colour == GREY
    return {
        "marker": marker,
        "markerfacecolor": "white" if hollow else colour,
        "markeredgecolor": GREY if hollow else INK,
        "markeredgewidth": 1.4 if hollow else 0.7,
        "linestyle": "",
    }


def dot(axes: Any, x: float, y: float, marker: str, colour: str, *, size: float = 8, label: str | None = None) -> None:
    """One mark above lines and bars."""
    axes.plot([x], [y], markersize=size, zorder=3, label=label, **look(colour, marker))


def cross(axes: Any, x: float, y: float, *, size: float = 14) -> None:
    """The mark of a broken variant."""
    axes.plot([x], [y], marker="x", markersize=size, color=INK, markeredgewidth=1.8, linestyle="", zorder=4)


def ring(axes: Any, x: float, y: float, *, size: float = 17) -> None:
    """The mark of the winner."""
    axes.plot([x], [y], marker="o", markersize=size, color=INK, fillstyle="none", linestyle="", zorder=4)


def lines(axes: Any, names: list[str]) -> None:
    """Name the horizontal lines of a plot, the first one on top."""
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.grid(axis="y", visible=False)
