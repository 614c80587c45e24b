"""The plot of the goal against what it costs."""

from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from excise.reporting.labels import place_labels
from excise.reporting.style import BESIDE, INK, cross, dot, look, ring, series, series_of
from excise.reporting.summary import Column, Row, Summary
from excise.reporting.tables import in_words

LOG_RATIO = 3.0
"""Perplexities far off that differ by more than this ratio get a logarithmic axis."""


def scaled(value: float, column: Column) -> float:
    """A figure as it is drawn: shares in per cent."""
    return 100 * value if column.unit == "share" else value


def axis(column: Column) -> str:
    """What an axis is called."""
    return f"{column.title}, %" if column.unit == "share" else column.title


def figure_of(row: Row, column: Column) -> float | None:
    """A variant's figure as it is drawn."""
    value = row.cells[column.address].figure
    return None if value is None else scaled(value, column)


def reach(row: Row, base: Row, column: Column) -> list[float]:
    """The ends of the interval around a variant's figure as they are drawn; none where there is no interval.

    Of a perplexity the interval is that of the relative change, of anything else that of the difference.
    """
    change, before = row.cells[column.address].change, base.cells[column.address].figure
    if change is None or before is None:
        return []
    if column.metric == "perplexity":
        return [before * (1 + end) for end in change.relative_interval or ()]
    return [scaled(before + end, column) for end in change.interval or ()]


def trade_off(summary: Summary) -> Figure:
    """The goal's metric against the first budget's, one mark per variant, with paired intervals.

    Perplexities beyond the limit for broken variants have a panel of their own at the right, so that they do not
    squeeze the others together.
    """
    across, up, base = summary.budgets[0], summary.target, summary.baseline
    rows = [row for row in summary.variants if None not in (figure_of(row, across), figure_of(row, up))]
    start, level = figure_of(base, across) or 0.0, figure_of(base, up) or 0.0
    edge = float("inf")
    if across.task == "perplexity":
        edge = start * (1 + summary.limits.broken_perplexity_increase)
    far = [row for row in rows if (figure_of(row, across) or 0.0) > edge]
    near = [row for row in rows if row not in far]
    figure = Figure(figsize=(8.2, 4.6), layout="constrained")
    panels = figure.subplots(
        1, 2 if far else 1, sharey=True, squeeze=False, gridspec_kw={"width_ratios": [4, 1] if far else [1]}
    )[0]
    for axes, inside in zip(panels, (near, far), strict=False):
        axes.axhline(level, color=INK, linewidth=0.8, linestyle=":")
        _marks(axes, summary, inside, across, up)
    budget = summary.goal.within[across.address]
    limit = start * (1 + budget.limit) if budget.relative else start + scaled(budget.limit, across)
    panels[0].axvline(limit, color=INK, linewidth=0.8, linestyle="--")
    dot(panels[0], start, level, "*", INK, size=15)
    if far:
        _far_axis(panels[0], panels[1], [figure_of(row, across) or 0.0 for row in far])
    panels[0].xaxis.set_major_locator(MaxNLocator(6))
    figure.supxlabel(axis(across), fontsize=10)
    panels[0].set_ylabel(axis(up).replace(" (", "\n(", 1))
    if up.unit == "share":
        top = panels[0].get_ylim()[1]
        panels[0].set_ylim(-0.03 * top, top)
    for axes, inside in zip(panels, (near, far), strict=False):
        _sizes(axes, inside, across, up)
    panels[-1].legend(handles=_legend(summary), **BESIDE)
    return figure


def _marks(axes: Any, summary: Summary, rows: Sequence[Row], across: Column, up: Column) -> None:
    """Marks, intervals and sizes of some variants; a line joins the sizes of one series."""
    for name, (colour, marker) in series(summary).items():
        own = sorted(
            (row for row in rows if row.about.kind != "baseline" and series_of(row) == name),
            key=lambda row: (row.about.size or 0, row.variant),
        )
        control = any(row.about.kind == "control" for row in own)
        points = [(figure_of(row, across) or 0.0, figure_of(row, up) or 0.0) for row in own]
        if not control and len({row.about.size for row in own}) == len(own):
            axes.plot([x for x, _ in points], [y for _, y in points], color=colour, linewidth=1, alpha=0.6, zorder=1)
        for row, (x, y) in zip(own, points, strict=True):
            if ends := reach(row, summary.baseline, up):
                axes.plot([x, x], ends, color=colour, linewidth=1.3, zorder=2, solid_capstyle="butt")
            if ends := reach(row, summary.baseline, across):
                axes.plot(ends, [y, y], color=colour, linewidth=1.3, zorder=2, solid_capstyle="butt")
            dot(axes, x, y, marker, colour)
            if row.broken:
                cross(axes, x, y)
            if row.variant == summary.verdict.winner:
                ring(axes, x, y)


def _sizes(axes: Any, rows: Sequence[Row], across: Column, up: Column) -> None:
    """The size beside each candidate's mark."""
    points = {row.variant: (figure_of(row, across) or 0.0, figure_of(row, up) or 0.0) for row in rows}
    sized = [row for row in rows if row.about.kind == "candidate" and row.about.size is not None]
    place_labels(axes, points, {row.variant: f"{row.about.size:,g}" for row in sized})


def _far_axis(left: Any, right: Any, values: list[float]) -> None:
    """Plain numbers on the panel of far perplexities, and slanted strokes where the axis is cut."""
    if max(values) / min(values) > LOG_RATIO:
        right.set_xscale("log")
        right.xaxis.set_major_locator(LogLocator(subs=(1, 3)))
    else:
        right.xaxis.set_major_locator(MaxNLocator(2))
    right.set_xlim(min(values) * 0.75, max(values) * 1.35)
    right.xaxis.set_minor_locator(NullLocator())
    right.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    right.spines["left"].set_visible(False)
    right.tick_params(axis="y", length=0)
    stroke = {"marker": [(-0.6, -1), (0.6, 1)], "markersize": 9, "linestyle": "", "color": INK, "clip_on": False}
    left.plot([1], [0], transform=left.transAxes, **stroke)
    right.plot([0], [0], transform=right.transAxes, **stroke)


def _legend(summary: Summary) -> list[Any]:
    """One entry per series and one for each special mark that occurs."""

    def entry(label: str, marker: str, colour: str, **options: Any) -> Any:
        return Line2D([], [], marker=marker, color=colour, linestyle="", label=label, **options)

    entries = [entry("unpruned", "*", INK, markersize=13)]
    for name, (colour, marker) in series(summary).items():
        entries.append(Line2D([], [], label=name, markersize=8, **look(colour, marker)))
    if any(row.broken for row in summary.variants):
        entries.append(entry("broken", "x", INK, markersize=9, markeredgewidth=1.8))
    if summary.verdict.winner:
        entries.append(entry("best within budget", "o", INK, markersize=11, fillstyle="none"))
    budget = in_words(summary.goal.within[summary.budgets[0].address])
    entries.append(Line2D([], [], color=INK, linewidth=0.8, linestyle="--", label=f"budget {budget}"))
    return entries
