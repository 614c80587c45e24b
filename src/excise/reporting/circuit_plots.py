"""Plots of circuits: which heads and MLPs carry a task, and how much of it circuits of rising size carry."""

from collections.abc import Sequence

import numpy as np
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure

from excise.artefacts import Json
from excise.reporting.style import GREY, INK, MARKERS

WIDTH = 8.2
"""Inches; the text column of a page."""

NAMED = 8
"""Strongest nodes whose names are written into the heat map."""

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")


def heat_map(nodes: Sequence[Json], graph: Json, score: str) -> Figure:
    """Effect of every head, layers x heads, and of every MLP beside them.

    The colour scale is symmetric and ends at the strongest head, so that one MLP that carries everything (the first one
    often does) does not wash the heads out; an MLP beyond it has the end's colour, and its number is written in.

    Args:
        nodes: rows with ``node`` and ``score``.
        graph: ``layers`` and ``heads``.
        score: which entry to draw: ``exact`` or a method.
    """
    values = {row["node"]: row[score] for row in nodes}
    layers, heads = graph["layers"], graph["heads"]
    grid = np.array([[values[f"a{layer}.h{head}"] for head in range(heads)] for layer in range(layers)])
    mlps = np.array([[values[f"m{layer}"]] for layer in range(layers)])
    end = max(float(np.abs(grid).max()), 1e-12)
    norm = TwoSlopeNorm(0, -end, end)
    figure = Figure(figsize=(0.62 * heads + 2.6, 0.2 * layers + 1.3), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=[heads, 1])
    picture = left.imshow(grid, cmap="RdBu_r", norm=norm, aspect="auto")
    right.imshow(mlps, cmap="RdBu_r", norm=norm, aspect="auto")
    for place in np.argsort(-np.abs(grid), axis=None, kind="stable")[:NAMED]:
        layer, head = np.unravel_index(place, grid.shape)
        _number(left, int(head), int(layer), float(grid[layer, head]), end)
    for layer in np.argsort(-np.abs(mlps[:, 0]), kind="stable")[:3]:
        _number(right, 0, int(layer), float(mlps[layer, 0]), end)
    left.set_xlabel("head")
    left.set_ylabel("layer (0 = first)")
    left.set_xticks(range(heads))
    left.set_yticks(range(0, layers, 1 if layers <= 16 else 2))
    right.set_xticks([0], ["MLP"])
    for axes in (left, right):
        axes.grid(visible=False)
        axes.tick_params(length=0)
    figure.colorbar(picture, ax=[left, right], label="lost without it (red: supports; blue: works against)", shrink=0.8)
    return figure


def _number(axes: object, x: int, y: int, value: float, end: float) -> None:
    colour = "white" if abs(value) > 0.55 * end else INK
    axes.text(x, y, f"{value:.1f}", ha="center", va="center", fontsize=7, color=colour)  # type: ignore[attr-defined]


def curves(results: Sequence[Json]) -> Figure:
    """Faithfulness over the share of edges, one panel per ranking, with bands of 95 % over pairs.

    Args:
        results: faithfulness files of several methods on the same pairs.
    """
    figure = Figure(figsize=(WIDTH, 3.4 + 0.1 * len(results)), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for axes, rank in zip(panels, ("signed", "absolute"), strict=True):
        axes.axhline(1, color=INK, linewidth=1)
        axes.axhline(0, color=GREY, linewidth=1, linestyle="--")
        for place, result in enumerate(results):
            row = result["rankings"][rank]
            name = "cpr" if rank == "signed" else "cmd"
            low, high = np.array(row["intervals"]).T
            colour = COLOURS[place % len(COLOURS)]
            axes.fill_between(result["fractions"], low, high, color=colour, alpha=0.15, linewidth=0)
            axes.plot(
                result["fractions"],
                row["faithfulness"],
                color=colour,
                marker=MARKERS[place % len(MARKERS)],
                markersize=5,
                label=f"{result['meta']['method']}: {name.upper()} {row['areas'][name]:.3f}",
            )
        axes.set_xscale("log")
        axes.set_xticks([0.001, 0.01, 0.1, 1], ["0.1 %", "1 %", "10 %", "100 %"])
        axes.set_xlabel("edges kept (log axis)")
        axes.set_title(f"best edges by {rank} score", fontsize=10)
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2, fontsize=8, frameon=False)
    panels[0].set_ylabel("faithfulness (1 = the model)")
    return figure
