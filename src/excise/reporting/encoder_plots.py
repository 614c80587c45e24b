"""What smaller encoders keep against what they cost."""

from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from excise.config import BASELINE
from excise.reporting.labels import place_labels
from excise.reporting.style import BESIDE, INK, dot, look, ring, series, series_of
from excise.reporting.summary import Column, Row, Summary


def reach(row: Row, address: str) -> tuple[float, tuple[float, float] | None] | None:
    """Per cent of the dense model's figure that an encoder keeps, and the ends of the 95 % interval."""
    change = row.cells[address].change
    if change is None or change.relative is None:
        return None
    ends = change.relative_interval
    return 100 * (1 + change.relative), None if ends is None else (100 * (1 + ends[0]), 100 * (1 + ends[1]))


def kept_against_cost(summary: Summary, kept: Sequence[Column], cost: Column, at_least: float) -> Figure:
    """One panel per metric: its kept share against a cost, an encoder per mark.

    Args:
        summary: of all encoders.
        kept: metrics that are kept, one panel each.
        cost: the horizontal axis.
        at_least: share that must be kept.
    """
    figure = Figure(figsize=(4.1 * len(kept) + 1.6, 4.4), layout="constrained")
    panels = figure.subplots(1, len(kept), sharey=True, squeeze=False)[0]
    dense = summary.baseline.cells[cost.address].figure or 0.0
    for axes, column in zip(panels, kept, strict=True):
        axes.axhline(100, color=INK, linewidth=0.8, linestyle=":")
        axes.axhline(100 * at_least, color=INK, linewidth=0.8, linestyle="--")
        _marks(axes, summary, column, cost)
        dot(axes, dense, 100, "*", INK, size=15)
        axes.set_title(column.label.replace(", documents by", ",\ndocuments by"), fontsize=10)
        axes.set_xlim(left=-0.03 * axes.get_xlim()[1])  # a mark at almost no time is seen whole
    panels[0].set_ylabel(f"{kept[0].title.partition(',')[0]} kept, %")
    figure.supxlabel(cost.title, fontsize=10)
    panels[-1].legend(handles=_legend(summary, at_least), **BESIDE)
    figure.draw_without_rendering()  # settles where marks stand
    for axes, column in zip(panels, kept, strict=True):
        _sizes(axes, summary, column, cost)
    return figure


def _sizes(axes: Any, summary: Summary, column: Column, cost: Column) -> None:
    """The size beside the mark of each encoder that is no control."""
    drawn = {row.variant: (row, reach(row, column.address)) for row in summary.variants if row.about.kind != BASELINE}
    points = {
        name: (row.cells[cost.address].figure or 0.0, one[0]) for name, (row, one) in drawn.items() if one is not None
    }
    sizes = {name: drawn[name][0].about for name in points}
    texts = {name: f"{about.size:g}" for name, about in sizes.items() if about.kind != "control" and about.size}
    place_labels(axes, points, texts)


def _marks(axes: Any, summary: Summary, column: Column, cost: Column) -> None:
    for name, (colour, marker) in series(summary).items():
        own = [row for row in summary.variants if row.about.kind != BASELINE and series_of(row) == name]
        own.sort(key=lambda row: (row.cells[cost.address].figure or 0.0, row.variant))
        found = [(row, row.cells[cost.address].figure or 0.0, reach(row, column.address)) for row in own]
        drawn = [(row, x, one) for row, x, one in found if one is not None]
        if len({row.about.size for row, _, _ in drawn}) == len(drawn):
            axes.plot([x for _, x, _ in drawn], [y for _, _, (y, _) in drawn], color=colour, linewidth=1, alpha=0.6)
        for row, x, (y, ends) in drawn:
            if ends is not None:
                axes.plot([x, x], ends, color=colour, linewidth=1.3, zorder=2, solid_capstyle="butt")
            dot(axes, x, y, marker, colour)
            if row.variant == summary.verdict.winner:
                ring(axes, x, y)


def _legend(summary: Summary, at_least: float) -> list[Line2D]:
    entries = [Line2D([], [], marker="*", color=INK, linestyle="", label="dense", markersize=13)]
    for name, (colour, marker) in series(summary).items():
        entries.append(Line2D([], [], label=name, markersize=8, **look(colour, marker)))
    if summary.verdict.winner:
        entries.append(
            Line2D([], [], marker="o", color=INK, linestyle="", label="fastest that keeps it", fillstyle="none")
        )
    entries.append(Line2D([], [], color=INK, linewidth=0.8, linestyle="--", label=f"{100 * at_least:g} %"))
    return entries
