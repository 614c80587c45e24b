"""The plot of a behaviour against perplexity: what less of it costs."""

from typing import Any

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from excise.artefacts import Json
from excise.reporting.style import BESIDE, INK, cross, dot, look, ring, rule, series
from excise.reporting.summary import adjective, baseline_row

LOG_RATIO = 3.0
"""Perplexities far off that differ by more than this ratio get a logarithmic axis."""


def trade_off(summary: Json) -> Figure:
    """Share of continuations with the behaviour against perplexity, one mark a variant, with paired intervals.

    Variants whose perplexity is beyond the limit for broken ones stand in a panel of their own at the right, so that
    they do not squeeze the others together.
    """
    base, rows = baseline_row(summary), summary["variants"]
    edge = base["perplexity"] * (1 + summary["limits"]["broken_perplexity_increase"])
    near = [row for row in rows if row["perplexity"] <= edge]
    far = [row for row in rows if row["perplexity"] > edge]
    figure = Figure(figsize=(8.2, 4.6), layout="constrained")
    panels = figure.subplots(
        1, 2 if far else 1, sharey=True, squeeze=False, gridspec_kw={"width_ratios": [4, 1] if far else [1]}
    )[0]
    share = 100 * base["scores"][summary["primary"]]["share"]
    budget = base["perplexity"] * (1 + summary["limits"]["max_perplexity_increase"])
    for axes, inside in zip(panels, (near, far), strict=False):
        axes.axhline(share, color=INK, linewidth=0.8, linestyle=":")
        _marks(axes, summary, inside, share)
    panels[0].axvline(budget, color=INK, linewidth=0.8, linestyle="--")
    dot(panels[0], base["perplexity"], share, "*", INK, size=15)
    if far:
        _far_axis(panels[0], panels[1], [row["perplexity"] for row in far])
    panels[0].xaxis.set_major_locator(MaxNLocator(6))
    text = summary["perplexity"]
    figure.supxlabel(f"perplexity on {text['text']} ({text['protocol']})", fontsize=10)
    panels[0].set_ylabel(f"{adjective(summary)} continuations, %\n({rule(summary, summary['primary'])})")
    top = panels[0].get_ylim()[1]
    panels[0].set_ylim(-0.03 * top, top)
    panels[-1].legend(handles=_legend(summary), **BESIDE)
    return figure


def _marks(axes: Any, summary: Json, rows: list[Json], share: float) -> None:
    """Marks, intervals and sizes of some variants; a line joins the sizes of one selection."""
    scorer, base = summary["primary"], baseline_row(summary)["perplexity"]
    for name, (colour, marker) in series(summary).items():
        own = sorted(
            (row for row in rows if row["selection"] == name), key=lambda row: (row["neurons"], row["variant"])
        )
        control = any(row["kind"] == "control" for row in own)
        points = [(row["perplexity"], 100 * row["scores"][scorer]["share"]) for row in own]
        if not control and len({row["neurons"] for row in own}) == len(own):
            axes.plot([x for x, _ in points], [y for _, y in points], color=colour, linewidth=1, alpha=0.6, zorder=1)
        for row, (x, y) in zip(own, points, strict=True):
            ends = [share + 100 * end for end in row["change"][scorer]["interval"]]
            axes.plot([x, x], ends, color=colour, linewidth=1.3, zorder=2, solid_capstyle="butt")
            if row["perplexity_interval"]:
                reach = [base * (1 + end) for end in row["perplexity_interval"]]
                axes.plot(reach, [y, y], color=colour, linewidth=1.3, zorder=2, solid_capstyle="butt")
            dot(axes, x, y, marker, colour)
            if row["flag"]:
                cross(axes, x, y)
            if row["variant"] == summary["verdict"]["winner"]:
                ring(axes, x, y)
            if not control:
                axes.annotate(f"{row['neurons']:,}", (x, y), (9, 5), textcoords="offset points", fontsize=8, color=INK)


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


def _legend(summary: Json) -> list[Any]:
    """One entry a selection and one for each special mark that occurs."""

    def entry(label: str, marker: str, colour: str, **options: Any) -> Any:
        return Line2D([], [], marker=marker, color=colour, linestyle="", label=label, **options)

    entries = [entry("unpruned", "*", INK, markersize=13)]
    for name, (colour, marker) in series(summary).items():
        entries.append(Line2D([], [], label=name, markersize=8, **look(colour, marker)))
    if any(row["flag"] for row in summary["variants"]):
        entries.append(entry("broken", "x", INK, markersize=9, markeredgewidth=1.8))
    if summary["verdict"]["winner"]:
        entries.append(entry("best within budget", "o", INK, markersize=11, fillstyle="none"))
    budget = summary["limits"]["max_perplexity_increase"]
    entries.append(Line2D([], [], color=INK, linewidth=0.8, linestyle="--", label=f"budget +{100 * budget:g} %"))
    return entries
