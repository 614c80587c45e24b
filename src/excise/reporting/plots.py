"""The plots: matplotlib figures as SVG or PNG whose bytes depend on nothing but the data.

Colours are those of Okabe and Ito (2008), told apart by people with any common colour vision; every series also has a
marker of its own, so that a print in grey says the same.
"""

import io
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from excise.artefacts import Json
from excise.reporting.summary import baseline_row

if TYPE_CHECKING:
    from numpy.typing import NDArray

GREY, INK, LIGHT = "#8c8c8c", "#222222", "#d9d9d9"

COLOURS = {
    "lrp": "#0072b2",
    "lrp-cp": "#56b4e9",
    "wanda": "#d55e00",
    "gradient": "#009e73",
    "activation": "#f0e442",
    "aura": "#cc79a7",
    "magnitude": GREY,
    "random": GREY,
}
"""Colour of a method; controls are grey."""

MARKERS = "os^Dvph<>8HdP*"

LOG_RATIO = 3.0
"""Perplexities further apart than this ratio get a logarithmic axis."""

STYLE = {
    "svg.hashsalt": "excise",
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": INK,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": "#ececec",
    "grid.linewidth": 0.8,
    "legend.frameon": False,
    "figure.dpi": 100,
    "savefig.dpi": 200,
}


def render(draw: Callable[..., Figure], *arguments: object, kind: str = "svg") -> bytes:
    """Call a plot function and return the picture.

    Args:
        draw: one of the functions of this module.
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


def series(summary: Json) -> dict[str, tuple[str, str]]:
    """Colour and marker of each selection in the table; selections of one method share the colour."""
    found: dict[str, tuple[str, str]] = {}
    for row in summary["variants"]:
        if row["selection"] is not None and row["selection"] not in found:
            found[row["selection"]] = (COLOURS.get(row["method"], INK), MARKERS[len(found) % len(MARKERS)])
    return found


def trade_off(summary: Json) -> Figure:
    """Toxic share against perplexity, one point a variant, intervals of the paired change."""
    scorer, base = summary["primary"], baseline_row(summary)
    share = base["toxicity"][scorer]["toxic_share"]
    figure = Figure(figsize=(7.6, 4.6), layout="constrained")
    axes = figure.subplots()
    axes.axhline(100 * share, color=INK, linewidth=0.8, linestyle=":")
    limit = base["perplexity"] * (1 + summary["limits"]["max_perplexity_increase"])
    axes.axvline(limit, color=INK, linewidth=0.8, linestyle="--")
    axes.plot([base["perplexity"]], [100 * share], marker="*", color=INK, markersize=14, linestyle="", label="unpruned")
    for name, (colour, marker) in series(summary).items():
        rows = sorted(
            (r for r in summary["variants"] if r["selection"] == name), key=lambda r: (r["neurons"], r["variant"])
        )
        control = rows[0]["kind"] == "control"
        if not control and len({row["neurons"] for row in rows}) == len(rows):
            axes.plot(*_points(rows, scorer), color=colour, linewidth=1, alpha=0.6, zorder=1)
        for position, row in enumerate(rows):
            x, y = row["perplexity"], 100 * row["toxicity"][scorer]["toxic_share"]
            low, high = (100 * (share + edge) for edge in row["change"][scorer]["interval"])
            axes.plot([x, x], [low, high], color=colour, linewidth=1.2, zorder=2, solid_capstyle="butt")
            axes.plot(
                [x],
                [y],
                marker=marker,
                markersize=8,
                color=colour,
                markeredgecolor="white" if not control else INK,
                markeredgewidth=0.7,
                linestyle="",
                zorder=3,
                label=name if position == 0 else None,
            )
            if row["flag"]:
                axes.plot([x], [y], marker="x", markersize=14, color=INK, markeredgewidth=1.8, linestyle="", zorder=4)
            if row["variant"] == summary["verdict"]["winner"]:
                axes.plot([x], [y], marker="o", markersize=17, color=INK, fillstyle="none", linestyle="", zorder=4)
            if not control:
                axes.annotate(str(row["neurons"]), (x, y), (8, 6), textcoords="offset points", fontsize=8, color=INK)
    if any(row["flag"] for row in summary["variants"]):
        axes.plot([], [], marker="x", color=INK, markersize=9, markeredgewidth=1.8, linestyle="", label="broken")
    if summary["verdict"]["winner"]:
        axes.plot(
            [], [], marker="o", color=INK, markersize=11, fillstyle="none", linestyle="", label="best within budget"
        )
    values = [row["perplexity"] for row in summary["variants"]]
    text = summary["perplexity"]
    axes.set_xlabel(f"perplexity on {text['text']} ({text['protocol']})")
    if max(values) / min(values) > LOG_RATIO:
        _log_axis(axes, min(values), max(values))
        axes.set_xlabel(f"{axes.get_xlabel()}, logarithmic")
    axes.set_ylabel(f"toxic continuations, %\n({_rule(summary, scorer)})")
    axes.set_ylim(bottom=min(0, axes.get_ylim()[0]))
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=9)
    return figure


def _points(rows: Sequence[Json], scorer: str) -> tuple[list[float], list[float]]:
    return [r["perplexity"] for r in rows], [100 * r["toxicity"][scorer]["toxic_share"] for r in rows]


def _rule(summary: Json, scorer: str) -> str:
    rule = summary["scorers"][scorer]
    return f"{scorer} {rule['strictness']} {rule['threshold']}"


def _log_axis(axes: Any, low: float, high: float) -> None:
    """A logarithmic x axis with plain numbers at 1, 2, 5 x powers of ten."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    axes.set_xscale("log")
    exponents = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    ticks = [factor * 10.0**exponent for exponent in exponents for factor in (1, 2, 5)]
    axes.set_xlim(low * 0.9, high * 1.25)
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def forest(summary: Json) -> Figure:
    """Paired change of the toxic share of every variant with its interval, one panel a scorer."""
    scorers = [summary["primary"], *(name for name in summary["scorers"] if name != summary["primary"])]
    rows = [row for row in summary["variants"] if row["kind"] != "baseline"]
    look = series(summary)
    figure = Figure(figsize=(7.6, 1.1 + 0.3 * len(rows)), layout="constrained")
    panels = figure.subplots(1, len(scorers), sharey=True, squeeze=False)[0]
    for axes, scorer in zip(panels, scorers, strict=True):
        axes.axvline(0, color=INK, linewidth=1)
        for position, row in enumerate(rows):
            colour, marker = look[row["selection"]]
            change = row["change"][scorer]
            axes.plot(
                [100 * edge for edge in change["simultaneous_interval"]], [position] * 2, color=colour, linewidth=1
            )
            axes.plot([100 * edge for edge in change["interval"]], [position] * 2, color=colour, linewidth=3)
            axes.plot(
                [100 * change["difference"]],
                [position],
                marker="x" if row["flag"] else marker,
                color=INK if row["flag"] else colour,
                markeredgecolor=INK,
                markersize=8,
                markeredgewidth=1.6 if row["flag"] else 0.7,
                linestyle="",
                zorder=3,
            )
        axes.set_title(_rule(summary, scorer), fontsize=10)
        axes.set_xlabel("change of toxic share, points")
        axes.grid(axis="y", visible=False)
    panels[0].set_yticks(range(len(rows)), [row["variant"] for row in rows])
    panels[0].set_ylim(len(rows) - 0.5, -0.5)
    return figure


def before_after(before: "NDArray[np.float64]", after: "NDArray[np.float64]", label: str, scorer: str) -> Figure:
    """Mean score of every prompt before and after, and the sorted differences."""
    figure = Figure(figsize=(7.6, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    dense = before.size > 2000
    left.plot([0, 1], [0, 1], color=INK, linewidth=0.8, linestyle="--")
    left.plot(
        before,
        after,
        marker="o",
        markersize=4,
        alpha=0.35,
        color=COLOURS["lrp"],
        markeredgewidth=0,
        linestyle="",
        rasterized=dense,
    )
    left.set_xlabel(f"unpruned: mean score of the prompt\n({scorer})")
    left.set_ylabel(f"{label}: mean score of the prompt")
    left.set_aspect("equal")
    difference = np.sort(after - before)
    rank = 100 * (np.arange(difference.size) + 0.5) / difference.size
    right.axhline(0, color=INK, linewidth=1)
    right.fill_between(rank, difference, 0, where=difference <= 0, color=COLOURS["lrp"], linewidth=0)
    right.fill_between(
        rank, difference, 0, where=difference >= 0, color=COLOURS["wanda"], linewidth=0, hatch="////", edgecolor="white"
    )
    right.axhline(difference.mean(), color=INK, linewidth=1, linestyle="--")
    right.set_xlabel("prompts, sorted by change, %")
    right.set_ylabel("change of mean score")
    return figure


def categories(rows: Sequence[Json], label: str) -> Figure:
    """Toxic share by category of prompt, before and after."""
    figure = Figure(figsize=(7.6, 0.9 + 0.42 * len(rows)), layout="constrained")
    axes = figure.subplots()
    for position, row in enumerate(rows):
        low, high = (100 * (row["before"] + edge) for edge in row["interval"])
        axes.plot([low, high], [position] * 2, color=COLOURS["lrp"], linewidth=3, alpha=0.45, solid_capstyle="butt")
        axes.plot(
            [100 * row["before"]],
            [position],
            marker="*",
            markersize=12,
            color=INK,
            linestyle="",
            label="unpruned" if position == 0 else None,
        )
        axes.plot(
            [100 * row["after"]],
            [position],
            marker="o",
            markersize=8,
            color=COLOURS["lrp"],
            markeredgecolor="white",
            linestyle="",
            label=label if position == 0 else None,
        )
    axes.set_yticks(range(len(rows)), [f"{row['category']} ({row['prompts']})" for row in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlabel("toxic continuations, %")
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=9)
    return figure


def layers(counts: Mapping[str, Sequence[int]], colours: Mapping[str, str]) -> Figure:
    """Number of selected neurons in each layer, one panel a variant."""
    figure = Figure(figsize=(7.6, 0.6 + 1.05 * len(counts)), layout="constrained")
    panels = figure.subplots(len(counts), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
    for axes, (name, values) in zip(panels, counts.items(), strict=True):
        axes.bar(range(len(values)), values, color=colours[name], edgecolor=INK, linewidth=0.5, width=0.85)
        axes.set_title(name, fontsize=9, loc="left", pad=2)
        axes.grid(axis="x", visible=False)
    panels[-1].set_xlabel("layer (0 = first)")
    figure.supylabel("neurons selected", fontsize=10)
    return figure


def stability(rows: Sequence[Json], looks: Mapping[str, tuple[str, str]]) -> Figure:
    """Jaccard overlap of the selections that single seeds give, one line a variant."""
    figure = Figure(figsize=(7.6, 0.9 + 0.34 * len(rows)), layout="constrained")
    axes = figure.subplots()
    for position, row in enumerate(rows):
        colour, marker = looks[row["selection"]]
        axes.plot(
            [row["chance"]] * 2,
            [position - 0.35, position + 0.35],
            color=INK,
            linewidth=1.5,
            label="expected by chance" if position == 0 else None,
        )
        axes.plot(
            row["between"],
            [position + 0.12] * len(row["between"]),
            marker=marker,
            color=colour,
            markersize=7,
            markeredgecolor=INK,
            markeredgewidth=0.6,
            linestyle="",
        )
        axes.plot(
            row["with_mean"],
            [position - 0.15] * len(row["with_mean"]),
            marker="|",
            color=colour,
            markersize=9,
            markeredgewidth=2,
            linestyle="",
        )
    axes.set_xlim(-0.02, 1.02)
    axes.set_yticks(range(len(rows)), [row["variant"] for row in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlabel("Jaccard overlap (1 = the same neurons)")
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=9)
    return figure


def overlap(names: Sequence[str], matrix: "NDArray[np.float64]") -> Figure:
    """Jaccard overlap of every two variants."""
    size = 1.6 + 0.52 * len(names)
    figure = Figure(figsize=(size + 1.2, size), layout="constrained")
    axes = figure.subplots()
    axes.imshow(matrix, cmap="Greys", vmin=0, vmax=1.4)
    for i, j in np.ndindex(matrix.shape):
        axes.text(
            j,
            i,
            f"{matrix[i, j]:.2f}",
            ha="center",
            va="center",
            fontsize=8,
            color="white" if matrix[i, j] > 0.75 else INK,
        )
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(names)), names)
    axes.grid(visible=False)
    for side in axes.spines.values():
        side.set_visible(False)
    axes.tick_params(length=0)
    return figure
