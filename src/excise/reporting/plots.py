"""The plots of the report beside the trade-off."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from excise.artefacts import Json
from excise.config import BASELINE
from excise.reporting.style import BESIDE, HIGHER, INK, LOWER, colour_of, cross, dot, lines, series, series_of
from excise.reporting.summary import Column, Row, Summary
from excise.reporting.tables import plural
from excise.reporting.trade_off import scaled
from excise.tasks.measurement import Values

WIDTH = 8.2
"""Inches; the text column of the page."""

MANY_PROMPTS = 2000
"""More dots than this are drawn as an image inside the SVG."""


FAR = 3
"""A perplexity of so many times the unpruned model's makes the axis logarithmic, and a control that is so much farther
off than all candidates is written as a number at the edge."""


def changes(summary: Summary, columns: Sequence[Column]) -> Figure:
    """Paired change of metrics of every variant with its intervals, one panel per metric."""
    rows = [row for row in summary.variants if row.about.kind != BASELINE]
    look = series(summary)
    figure = Figure(figsize=(WIDTH, 1.1 + 0.3 * len(rows)), layout="constrained")
    alike = len({column.unit for column in columns}) == 1
    panels = figure.subplots(1, len(columns), sharex=alike, sharey=True, squeeze=False)[0]
    edge = FAR * max(
        (_factor(row, column)[0] for row in rows for column in columns if row.about.kind != "control"), default=FAR
    )
    for axes, column in zip(panels, columns, strict=True):
        factor = column.metric == "perplexity"
        axes.axvline(1 if factor else 0, color=INK, linewidth=1)
        for position, row in enumerate(rows):
            colour, marker = look[series_of(row)]
            middle, *intervals = _factor(row, column) if factor else _change(row, column)
            if factor and middle > edge:
                axes.text(edge, position, f"{middle:.1g} →", ha="right", va="center", color=INK, fontsize=8)
                continue
            for ends, width in zip(intervals, (3.5, 1), strict=False):
                axes.plot(ends, [position] * len(ends), color=colour, linewidth=width, solid_capstyle="butt")
            if row.broken:
                cross(axes, middle, position, size=9)
            else:
                dot(axes, middle, position, marker, colour)
        name, _, rest = column.title.partition(" (")
        axes.set_title(rest.removesuffix(")").replace(", ", ",\n", 1) or column.label, fontsize=10)
        if factor:
            farthest = max(_factor(row, column)[0] for row in rows)
            axes.set_xscale("log" if farthest > FAR else "linear")
            if farthest > edge:
                axes.set_xlim(right=edge)
            axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
            axes.set_xlabel(f"{name},\ntimes the unpruned model's")
        else:
            axes.set_xlabel(f"change of {name}" + (", points" if column.unit == "share" else ""))
        lines(axes, [row.variant for row in rows])
    return figure


def _change(row: Row, column: Column) -> tuple[float, list[float], list[float]]:
    """The difference, its interval, and the one that holds for all candidates together; ends may be missing."""
    change = row.change(column.address)
    narrow, wide = (
        [scaled(end, column) for end in ends or ()] for ends in (change.interval, change.simultaneous_interval)
    )
    return scaled(change.difference or 0.0, column), narrow, wide


def _factor(row: Row, column: Column) -> tuple[float, list[float]]:
    """After over before, with its interval, which may be missing."""
    change = row.change(column.address)
    return 1 + (change.relative or 0.0), [1 + end for end in change.relative_interval or ()]


def before_after(before: Values, after: Values, label: str, title: str, item: str) -> Figure:
    """A value of every item before and after, and the sorted differences."""
    figure = Figure(figsize=(WIDTH, 3.9), layout="constrained")
    left, right = figure.subplots(1, 2)
    ends = [min(before.min(), after.min()), max(before.max(), after.max())]
    left.plot(ends, ends, color=INK, linewidth=0.8, linestyle="--")
    left.plot(
        before,
        after,
        marker="o",
        markersize=4.5,
        alpha=0.4,
        color=LOWER,
        markeredgewidth=0,
        linestyle="",
        rasterized=before.size > MANY_PROMPTS,
    )
    name, _, rest = title.partition(" (")
    left.set_xlabel(f"unpruned: {name} of the {item}" + (f"\n({rest}" if rest else ""))
    left.set_ylabel(f"{label}: {name} of the {item}")
    left.set_aspect("equal")
    difference = np.sort(after - before)
    rank = 100 * (np.arange(difference.size) + 0.5) / difference.size
    right.fill_between(rank, difference, 0, where=difference <= 0, facecolor=LOWER, linewidth=0)
    right.fill_between(
        rank, difference, 0, where=difference >= 0, facecolor=HIGHER, edgecolor="white", hatch="////", linewidth=0
    )
    right.axhline(0, color=INK, linewidth=1)
    right.axhline(difference.mean(), color=INK, linewidth=1, linestyle="--")
    right.set_xlim(0, 100)
    right.set_xlabel(f"{plural(item)}, sorted by change, %")
    right.set_ylabel(f"change of {name}")
    return figure


def categories(rows: Sequence[Json], label: str, axis: str) -> Figure:
    """A share by category of prompt, before and after, and its paired change."""
    figure = Figure(figsize=(WIDTH, 1.2 + 0.36 * len(rows)), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    right.axvline(0, color=INK, linewidth=1)
    for position, row in enumerate(rows):
        left.plot([100 * row["before"], 100 * row["after"]], [position] * 2, color=INK, linewidth=0.8, zorder=1)
        dot(left, 100 * row["before"], position, "*", INK, size=12, label="unpruned" if position == 0 else None)
        dot(left, 100 * row["after"], position, "o", LOWER, label=label if position == 0 else None)
        ends = [100 * end for end in row["interval"]]
        right.plot(ends, [position] * 2, color=LOWER, linewidth=3.5, solid_capstyle="butt")
        dot(right, 100 * row["difference"], position, "o", LOWER)
    left.set_xlim(left=min(0, left.get_xlim()[0]))
    left.set_xlabel(axis)
    right.set_xlabel("change, points")
    lines(left, [f"{row['category']} ({row['items']})" for row in rows])
    right.grid(axis="y", visible=False)
    figure.legend(*left.get_legend_handles_labels(), loc="outside upper left", ncols=2)
    return figure


def layers(counts: Mapping[str, Sequence[int]], colours: Mapping[str, str], unit: str) -> Figure:
    """Number of selected units in each layer, one panel a variant."""
    figure = Figure(figsize=(WIDTH, 0.7 + 0.95 * len(counts)), layout="constrained")
    panels = figure.subplots(len(counts), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
    for axes, (name, values) in zip(panels, counts.items(), strict=True):
        filled = [(layer, count) for layer, count in enumerate(values) if count]
        axes.bar(*zip(*filled, strict=True), color=colours[name], edgecolor=INK, linewidth=0.5, width=0.85)
        axes.set_title(name, fontsize=9, loc="left", pad=2)
        axes.grid(axis="x", visible=False)
        axes.set_xlim(-0.6, len(values) - 0.4)
    panels[-1].xaxis.set_major_locator(MaxNLocator(16, integer=True))
    panels[-1].yaxis.set_major_locator(MaxNLocator(2, integer=True))
    panels[-1].set_xlabel("layer (0 = first)")
    figure.supylabel(f"{unit}s selected", fontsize=10)
    return figure


def stability(rows: Sequence[Json], looks: Mapping[str, tuple[str, str]]) -> Figure:
    """Jaccard overlap of the selections that single seeds give, one line a variant."""
    figure = Figure(figsize=(WIDTH, 0.9 + 0.36 * len(rows)), layout="constrained")
    axes = figure.subplots()
    for position, row in enumerate(rows):
        colour, marker = looks[row["selection"]]
        axes.plot([row["chance"]] * 2, [position - 0.35, position + 0.35], color=INK, linewidth=1.5)
        axes.plot(
            row["with_mean"],
            [position + 0.2] * len(row["with_mean"]),
            marker="|",
            color=colour,
            markersize=9,
            markeredgewidth=2,
            linestyle="",
        )
        for value in row["between"]:
            dot(axes, value, position - 0.12, marker, colour, size=7)
    axes.set_xlim(-0.02, 1.02)
    lines(axes, [row["variant"] for row in rows])
    axes.set_xlabel("Jaccard overlap (1 = the same units)")
    entries = [
        Line2D([], [], marker="o", color="white", markeredgecolor=INK, linestyle="", label="two seeds"),
        Line2D([], [], marker="|", color=INK, markersize=9, markeredgewidth=2, linestyle="", label="seed and mean"),
        Line2D([], [], marker="|", color=INK, markersize=18, linestyle="", label="two random lists"),
    ]
    axes.legend(handles=entries, **BESIDE)
    return figure


def overlap(names: Sequence[str], matrix: Values) -> Figure:
    """Jaccard overlap of every two variants."""
    size = 1.6 + 0.5 * len(names)
    figure = Figure(figsize=(size + 1.2, size), layout="constrained")
    axes = figure.subplots()
    axes.imshow(matrix, cmap="Greys", vmin=0, vmax=1.4)
    for i, j in np.ndindex(matrix.shape):
        shade = "white" if matrix[i, j] > 0.75 else INK
        axes.text(j, i, f"{matrix[i, j]:.2f}", ha="center", va="center", fontsize=8, color=shade)
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(names)), names)
    axes.grid(visible=False)
    for side in axes.spines.values():
        side.set_visible(False)
    axes.tick_params(length=0)
    return figure


def method_colours(summary: Summary) -> dict[str, str]:
    """Colour of each variant by its method."""
    return {row.variant: colour_of(row) for row in summary.variants}
