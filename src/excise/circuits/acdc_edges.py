"""Greedy removal of edges, one after the other (ACDC: Conmy et al. 2023, arXiv:2304.14997, algorithm 1).

Destinations are visited from the logits down, and the sources of each from the last to the first. An edge is removed if
the objective falls by less than the threshold from the *current* circuit's: small losses may add up. What a removed
edge carries is the replacement (``resample``, ``zero``, ``mean``). The objective of the paper is ``kl``.

A model has too many edges to try each, so the search begins with the candidates that a cheap score put first; all other
edges are out from the start, and what that alone costs is measured. What lies before a destination's layer does not
change while its edges are tried, and is run once. Several edges are tried in one batch, as heads are in ``acdc``:
row i removes the next i + 1 together, and rows count up to the first edge that must stay. Decisions are those of one at
a time. Edges into a node that nobody reads any more are removed untried.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from excise.circuits.acdc import in_turn
from excise.circuits.graph import Graph, pruned
from excise.circuits.objectives import value as objective_value
from excise.circuits.run import Interchange, Prepared
from excise.circuits.stream import Stream
from excise.errors import ExciseError


@dataclass(frozen=True)
class EdgeRemoval:
    """What greedy removal found.

    Attributes:
        kept: bool ``[sources, destinations]``, pruned to what is connected.
        full: mean objective of the whole model.
        candidates: that of the circuit that the search began with.
        final: that of the kept edges.
        empty: that of no edge.
        tried: edges that were tried.
        runs: batched forward passes that were made, from a layer on.
    """

    kept: torch.Tensor
    full: float
    candidates: float
    final: float
    empty: float
    tried: int
    runs: int


class _Recorded(Interchange):
    """An interchange that keeps the residual stream that enters each layer."""

    def __init__(self, stream: Stream, prepared: Prepared, kept: torch.Tensor) -> None:
        super().__init__(stream, prepared.replacement, kept, prepared.clean.embedding)
        self.entering: list[torch.Tensor] = []

    def residual(self, layer: int, value: torch.Tensor) -> None:
        super().residual(layer, value)
        self.entering.append(value)

    def final(self, value: torch.Tensor) -> torch.Tensor:
        self.entering.append(value)
        return super().final(value)


class _Search:
    """The state of a removal: the edges that are left, and one run of the candidates per batch of pairs."""

    def __init__(self, stream: Stream, prepared: Sequence[Prepared], objective: str, kept: torch.Tensor) -> None:
        self.stream, self.prepared, self.objective = stream, prepared, objective
        self.kept = kept.clone()
        self.pairs = sum(len(one.batch.ids) for one in prepared)
        self.runs = 0
        self.recorded = []
        for one in prepared:
            taps = _Recorded(stream, one, kept)
            with torch.no_grad():
                one.prefix.run(one.embeddings, taps)
            if len(taps.entering) != stream.graph.layers + 1:
                raise ExciseError(
                    f"{len(taps.entering) - 1} of {stream.graph.layers} layers were seen: hooks did not run"
                )
            self.recorded.append(taps)

    def mean(self, layer: int, kept: torch.Tensor) -> list[float]:
        """Mean objective over all pairs, per row, run from ``layer`` on.

        Args:
            layer: the first one whose edges differ from the candidates.
            kept: bool ``[rows, sources, destinations]``.
        """
        rows = len(kept)
        totals = torch.zeros(rows, dtype=torch.float64)
        for one, base in zip(self.prepared, self.recorded, strict=True):
            entering = base.entering[layer]
            taps = Interchange(self.stream, one.replacement, kept, entering.repeat(rows, 1, 1))
            taps.resume(base, self.stream.graph.before_attention(layer))
            with torch.no_grad():
                logits = one.prefix.resumed(layer, entering.repeat(rows, 1, 1), taps)
                values = objective_value(self.objective, logits, one.batch, one.clean_logits)
            totals += values.double().cpu().view(rows, -1).sum(1)
        self.runs += 1
        means: list[float] = (totals / self.pairs).tolist()
        return means


def _layer_of(graph: Graph, destination: int) -> int:
    """The layer that reads; the number of layers for the logits."""
    return destination // (3 * graph.heads + 1)


def _ends(
    search: _Search, prepared: Sequence[Prepared], objective: str, threshold: float
) -> tuple[float, float, float]:
    """The objective of the whole model, with the candidates, and without any edge.

    Raises:
        ExciseError: hooks did not run, or the task does not depend on the edges.
    """
    graph = search.stream.graph
    whole = torch.cat([objective_value(objective, one.clean_logits, one.batch, one.clean_logits) for one in prepared])
    full = float(whole.double().mean())
    none = torch.zeros_like(graph.edges)
    again, first, empty = search.mean(0, torch.stack([graph.edges, search.kept, none]))
    if abs(again - full) > 1e-3 * max(1.0, abs(full)):
        raise ExciseError(
            f"with all edges the objective is {again:.4g}, but the model's is {full:.4g}: hooks did not run"
        )
    if abs(first - empty) <= threshold:
        raise ExciseError(
            f"removing every edge changes the objective by {abs(first - empty):.3g} (from {first:.3g}), no more than "
            f"the threshold {threshold:g}: nothing would be kept. Lower --threshold, or give more --candidates."
        )
    return full, first, empty


def _sources(
    search: _Search, destination: int, waiting: list[int], current: float, threshold: float, together: int
) -> float:
    """Decide over the edges into one destination; returns the objective of what is left."""

    def without(group: Sequence[int]) -> list[float]:
        rows = search.kept.repeat(len(group), 1, 1)
        for row, source in enumerate(group):
            rows[row:, source, destination] = False
        return search.mean(_layer_of(search.stream.graph, destination), rows)

    def remove(source: int) -> None:
        search.kept[source, destination] = False

    return in_turn(waiting, current, without, lambda value, before: before - value < threshold, remove, together)


def remove_edges(
    stream: Stream,
    prepared: Sequence[Prepared],
    candidates: torch.Tensor,
    *,
    objective: str,
    threshold: float,
    together: int = 4,
) -> EdgeRemoval:
    """Remove edges as long as each costs less than the threshold.

    Args:
        stream: the model.
        prepared: the pairs.
        candidates: the edges to begin with, bool ``[sources, destinations]``.
        objective: one of ``OBJECTIVES``.
        threshold: in the units of the objective.
        together: edges to try in one batch; does not change the result.

    Raises:
        ExciseError: the task does not depend on the edges (removing all moves the objective by no more than the
            threshold), or no edge or every edge is removed.
    """
    graph = stream.graph
    search = _Search(stream, prepared, objective, pruned(graph, candidates))
    full, first, empty = _ends(search, prepared, objective, threshold)
    current, tried, began = first, 0, int(search.kept.sum())
    # A head that nobody reads still moves a norm of all heads' writes (Gemma), and with it what the others write.
    shared = "attention_write" in stream.layers[0].norms
    for destination in range(len(graph.destinations) - 1, -1, -1):
        node, layer = int(graph.node_of[destination]), _layer_of(graph, destination)
        if node >= 0 and search.kept[:, destination].any() and not search.kept[node].any():  # nobody reads it
            search.kept[:, destination] = False
            if shared:
                (current,) = search.mean(layer, search.kept[None])
        waiting = search.kept[:, destination].nonzero()[:, 0].tolist()[::-1]
        tried += len(waiting)
        current = _sources(search, destination, waiting, current, threshold, together)
    kept = pruned(graph, search.kept)
    if not kept.any():
        raise ExciseError(f"every edge was removed within the threshold {threshold:g} per step: lower --threshold")
    if int(kept.sum()) == began:
        raise ExciseError(f"no edge can be removed within the threshold {threshold:g}: raise --threshold")
    return EdgeRemoval(kept, full, first, current, empty, tried, search.runs)
