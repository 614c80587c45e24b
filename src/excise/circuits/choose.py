"""From scores to a circuit: the best n edges, pruned to what is connected; greedily; only edges whose sign is sure."""

import heapq

import torch

from excise.circuits.graph import Graph, pruned
from excise.errors import ExciseError, unknown

RANKS = ("signed", "absolute")
"""``signed``: edges that support the behaviour most; ``absolute``: edges that move it most, whichever way."""

SELECTIONS = ("top", "greedy")


def ranking(scores: torch.Tensor, graph: Graph, rank: str) -> torch.Tensor:
    """Indices of all edges into the flattened matrix, best first; of equal scores the first edge of the graph.

    Args:
        scores: ``[sources, destinations]``.
        graph: the graph.
        rank: one of ``RANKS``.

    Raises:
        ExciseError: there is no such rank.
    """
    if rank not in RANKS:
        raise unknown("rank", rank, RANKS, where="--rank")
    places = graph.edges.flatten().nonzero()[:, 0]
    values = scores.flatten()[places]
    return places[torch.argsort(values.abs() if rank == "absolute" else values, descending=True, stable=True)]


def top(scores: torch.Tensor, graph: Graph, count: int, rank: str) -> torch.Tensor:
    """The best ``count`` edges, pruned to a fixpoint, bool ``[sources, destinations]`` (MIB, ``apply_topn``)."""
    return pruned(graph, chosen(scores, graph, count, rank))


def chosen(scores: torch.Tensor, graph: Graph, count: int, rank: str) -> torch.Tensor:
    """The best ``count`` edges, as they are."""
    kept = torch.zeros(graph.edges.numel(), dtype=torch.bool)
    kept[ranking(scores, graph, rank)[:count]] = True
    return kept.view(graph.edges.shape)


def greedy(scores: torch.Tensor, graph: Graph, count: int, rank: str) -> torch.Tensor:
    """From ``logits`` backwards: the best edge into what is there already, then its source is there too, and so on.

    Always connected to ``logits``; pruned to a fixpoint, since sources may be left that nothing reaches.
    """
    order = ranking(scores, graph, rank)
    place = torch.full((graph.edges.numel(),), -1, dtype=torch.int64)
    place[order] = torch.arange(len(order))
    places = place.view(graph.edges.shape)
    width = graph.edges.shape[1]
    into: dict[int, list[int]] = {}
    for destination, node in enumerate(graph.node_of.tolist()):
        into.setdefault(node, []).append(destination)
    heap: list[int] = []
    kept, reached = torch.zeros_like(graph.edges), set()

    def open_(node: int) -> None:
        reached.add(node)
        for destination in into.get(node, []):
            for found in places[:, destination].tolist():
                if found >= 0:
                    heapq.heappush(heap, found)

    open_(-1)
    for _ in range(count):
        if not heap:
            break
        source, destination = divmod(int(order[heapq.heappop(heap)]), width)
        kept[source, destination] = True
        if source not in reached:
            open_(source)
    return pruned(graph, kept)


def sure(scores: torch.Tensor, resampled: torch.Tensor, least: float) -> torch.Tensor:
    """Scores with those edges at 0 whose sign is not the same in a share of ``least`` of the bootstrap resamples.

    Args:
        scores: ``[sources, destinations]``.
        resampled: the same of each resample, ``[resamples, sources, destinations]``.
        least: between 0.5 and 1.
    """
    agree = (resampled.sign() == scores.sign()).double().mean(0)
    return torch.where(agree >= least, scores, torch.zeros_like(scores))


def jaccard(first: torch.Tensor, second: torch.Tensor) -> float:
    """Edges that are in both circuits, as a share of those in either."""
    either = int((first | second).sum())
    return int((first & second).sum()) / either if either else 1.0


def edge_count(size: float, graph: Graph, where: str = "--size") -> int:
    """A number of edges from a share below 1, or from a number.

    Raises:
        ExciseError: it keeps no edge, or all.
    """
    total = int(graph.edges.sum())
    count = int(size * total) if 0 < size < 1 else int(size)
    if size != count and not 0 < size < 1:
        raise ExciseError(f"{where} {size}: a share between 0 and 1, or a whole number of edges")
    if not 0 < count < total:
        raise ExciseError(
            f"{where} {size:g} is {count} of {total} edges: a circuit of none or of all of them says nothing"
        )
    return count
