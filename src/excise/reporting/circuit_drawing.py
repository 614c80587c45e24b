"""A drawing of a circuit: its strongest edges between the embedding, heads, MLPs and the logits, layer over layer."""

import re

from matplotlib.figure import Figure

from excise.artefacts import Json
from excise.reporting.style import HIGHER, INK, LOWER

EDGES = 60
"""Strongest edges that are drawn; more cannot be told apart."""

Place = tuple[float, float]


def strongest(circuit: Json, count: int = EDGES) -> list[Json]:
    """The edges that are drawn, strongest first."""
    return sorted(circuit["edges"], key=lambda row: -abs(row["score"]))[:count]


def drawing(circuit: Json, graph: Json) -> Figure:
    """Heads from left to right, MLPs at the right end, layers from the bottom to the top.

    A line is all edges from one node to another: those into its queries, keys and values together.

    Args:
        circuit: what ``excise circuit`` wrote.
        graph: ``layers`` and ``heads``.
    """
    lines: dict[tuple[str, str], float] = {}
    for row in strongest(circuit):
        source, _, destination = row["edge"].partition("->")
        pair = source, destination.partition("<")[0]
        lines[pair] = lines.get(pair, 0.0) + row["score"]
    largest = max(abs(score) for score in lines.values())
    names = sorted({name for pair in lines for name in pair})
    width = max(6.4, 0.62 * graph["heads"] + 2)
    figure = Figure(figsize=(width, 0.26 * graph["layers"] + 1.6), layout="constrained")
    axes = figure.subplots()
    for (source, destination), score in sorted(lines.items(), key=lambda item: abs(item[1])):
        axes.annotate(
            "",
            xy=_place(destination, graph),
            xytext=_place(source, graph),
            arrowprops={
                "arrowstyle": "-|>",
                "color": HIGHER if score > 0 else LOWER,
                "linewidth": 0.5 + 3 * (abs(score) / largest) ** 0.5,
                "alpha": 0.25 + 0.6 * (abs(score) / largest) ** 0.5,
                "shrinkA": 8,
                "shrinkB": 8,
                "connectionstyle": "arc3,rad=0.06",
            },
        )
    for name in names:
        x, y = _place(name, graph)
        box = {"boxstyle": "round,pad=0.2", "facecolor": "white", "edgecolor": INK, "linewidth": 0.6}
        axes.text(x, y, _label(name), ha="center", va="center", fontsize=6.5, bbox=box)
    axes.set_xlim(-0.9, graph["heads"] + 0.9)
    axes.set_ylim(-2.2, graph["layers"] + 1.2)
    axes.set_xticks([*range(graph["heads"]), graph["heads"]], [*map(str, range(graph["heads"])), "MLP"])
    axes.set_yticks(range(0, graph["layers"], 1 if graph["layers"] <= 16 else 2))
    axes.set_xlabel("head")
    axes.set_ylabel("layer (0 = first)")
    axes.tick_params(length=0)
    return figure


def _place(name: str, graph: Json) -> Place:
    middle = (graph["heads"] - 1) / 2
    if name == "input":
        return middle, -1.5
    if name == "logits":
        return middle, graph["layers"] + 0.6
    head = re.fullmatch(r"a(\d+)\.h(\d+)", name)
    if head:
        return float(head[2]), float(head[1])
    return float(graph["heads"]), float(name[1:])


def _label(name: str) -> str:
    head = re.fullmatch(r"a(\d+)\.h(\d+)", name)
    return f"L{head[1]}H{head[2]}" if head else f"MLP {name[1:]}" if name[0] == "m" else name
