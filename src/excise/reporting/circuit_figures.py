"""The plots of a circuit's report, with their words and their numbers."""

from collections.abc import Sequence

from excise.artefacts import Json
from excise.reporting.circuit_drawing import EDGES, drawing, strongest
from excise.reporting.circuit_plots import curves, heat_map
from excise.reporting.figures import Figure
from excise.reporting.tables import exact_percent


def figures(nodes: Json, judged_curves: Sequence[Json], circuit: Json) -> list[Figure]:
    """Faithfulness over size, the circuit, and what every head and MLP is worth.

    Args:
        nodes: what ``excise patch`` wrote.
        judged_curves: what ``excise faithfulness --edges`` wrote, one per method.
        circuit: what ``excise circuit`` wrote.
    """
    graph = nodes["meta"]["graph"]
    return [_curves(judged_curves), _drawing(circuit, graph), _heat_map(nodes, graph)]


def _curves(found: Sequence[Json]) -> Figure:
    rows = [
        (one["meta"]["method"], rank, share, size, f, low, high)
        for one in found
        for rank, row in one["rankings"].items()
        for share, size, f, (low, high) in zip(
            one["fractions"], row["edges"], row["faithfulness"], row["intervals"], strict=True
        )
    ]
    return Figure(
        name="faithfulness",
        title="How much of the task circuits of rising size carry",
        caption=(
            "Faithfulness: 1 is the model, 0 the corrupted prompt. Left: the best edges by signed score; above 1, "
            "because heads that work against the answer are left out. Right: the best by absolute score. Bands: 95 % "
            "over the judging pairs. Half of CPR and CMD lies above 50 % of the edges."
        ),
        draw=curves,
        arguments=(found,),
        columns=("method", "ranking", "share", "edges after pruning", "faithfulness", "low", "high"),
        rows=rows,
    )


def _drawing(circuit: Json, graph: Json) -> Figure:
    count = min(EDGES, len(circuit["edges"]))
    return Figure(
        name="circuit",
        title=f"The circuit: the strongest {count} of its {len(circuit['edges']):,} edges",
        caption=(
            "A line from one node to another is all edges between them (into queries, keys and values). Orange "
            "supports the answer, blue works against it; width and strength: root of the absolute score. The circuit "
            f"is the best {exact_percent(circuit['meta']['settings']['size'])} of the edges, of which those are left "
            "that are connected to both ends."
        ),
        draw=drawing,
        arguments=(circuit, graph),
        columns=("edge", "score"),
        rows=[(row["edge"], row["score"]) for row in strongest(circuit)],
    )


def _heat_map(nodes: Json, graph: Json) -> Figure:
    return Figure(
        name="heads",
        title="What every head and MLP is worth",
        caption=(
            "The objective that is lost when a node writes what it writes on the corrupted prompt, everything after "
            "it run again (exact), mean over the finding pairs. Red supports the answer, blue works against it. The "
            "scale ends at the strongest head; MLPs beyond it have their number written in."
        ),
        draw=heat_map,
        arguments=(nodes["nodes"], graph, "exact"),
        columns=tuple(nodes["nodes"][0]),
        rows=[tuple(node.values()) for node in nodes["nodes"]],
    )
