"""The graph of a model: what is written to the residual stream, and what reads it.

*Sources* write: the embedding (``input``), every head (``a3.h1``), every MLP (``m3``). *Destinations* read: the
queries, keys and values of every head (``a7.h2<q>``), every MLP, and the head onto the vocabulary (``logits``). An
*edge* ``a3.h1->a7.h2<k>`` leads from a source to a destination that reads after it is written. With grouped queries
each query head has keys and values of its own, as in MIB (arXiv:2504.13151): a group's heads read three copies.

Names are those of EAP-IG (Hanna et al. 2024, arXiv:2403.17806). Matrices over edges are ``[sources, destinations]``.
"""

import re
from dataclasses import dataclass
from functools import cached_property

import torch

from excise.errors import ExciseError, unknown

INPUT, LOGITS = "input", "logits"
SLOTS = ("q", "k", "v")


@dataclass(frozen=True)
class Graph:
    """Sources, destinations and the edges between them.

    Attributes:
        layers: number of layers.
        heads: query heads per layer.
        parallel: attention and MLP of a layer read the same residual stream (GPT-NeoX).
    """

    layers: int
    heads: int
    parallel: bool = False

    @cached_property
    def sources(self) -> tuple[str, ...]:
        """Names, in the order in which they are written: ``input``, then per layer its heads and its MLP."""
        layers = ((*(f"a{layer}.h{head}" for head in range(self.heads)), f"m{layer}") for layer in range(self.layers))
        return (INPUT, *(name for names in layers for name in names))

    @cached_property
    def destinations(self) -> tuple[str, ...]:
        """Names: per layer the queries of all heads, the keys, the values, the MLP; at the end ``logits``."""
        names = []
        for layer in range(self.layers):
            names += [f"a{layer}.h{head}<{slot}>" for slot in SLOTS for head in range(self.heads)]
            names.append(f"m{layer}")
        return (*names, LOGITS)

    def source(self, layer: int, head: int | None = None) -> int:
        """Index of a head, or of a layer's MLP."""
        return 1 + layer * (self.heads + 1) + (self.heads if head is None else head)

    def before_attention(self, layer: int) -> int:
        """How many sources the attention of a layer reads: the first so many."""
        return 1 + layer * (self.heads + 1)

    def before_mlp(self, layer: int) -> int:
        """How many sources the MLP of a layer reads."""
        return self.before_attention(layer) + (0 if self.parallel else self.heads)

    def slots(self, layer: int) -> slice:
        """Indices of all queries, keys and values of a layer among the destinations: slot by slot, head by head."""
        first = layer * (3 * self.heads + 1)
        return slice(first, first + 3 * self.heads)

    def mlp(self, layer: int) -> int:
        """Index of a layer's MLP among the destinations."""
        return layer * (3 * self.heads + 1) + 3 * self.heads

    @cached_property
    def edges(self) -> torch.Tensor:
        """Which source is written before which destination reads, bool ``[sources, destinations]``."""
        edges = torch.zeros(len(self.sources), len(self.destinations), dtype=torch.bool)
        for layer in range(self.layers):
            edges[: self.before_attention(layer), self.slots(layer)] = True
            edges[: self.before_mlp(layer), self.mlp(layer)] = True
        edges[:, -1] = True
        return edges

    @cached_property
    def node_of(self) -> torch.Tensor:
        """For each destination the index of its node among the sources; -1 for ``logits``."""
        nodes = []
        for layer in range(self.layers):
            nodes += [self.source(layer, head) for _ in SLOTS for head in range(self.heads)] + [self.source(layer)]
        return torch.tensor([*nodes, -1])

    def edge(self, name: str) -> tuple[int, int]:
        """The indices of an edge by its name.

        Raises:
            ExciseError: there is no such source, destination or edge.
        """
        first, arrow, second = name.partition("->")
        if not arrow:
            raise ExciseError(f"edge {name!r}: must read SOURCE->DESTINATION, for example a3.h1->a7.h2<k>")
        if first not in self.sources:
            raise unknown("source", first, self.sources[:1] + self.sources[-3:], where=f"edge {name!r}")
        if second not in self.destinations:
            raise unknown("destination", second, self.destinations[-4:], where=f"edge {name!r}")
        found = self.sources.index(first), self.destinations.index(second)
        if not self.edges[found]:
            raise ExciseError(f"edge {name!r}: {second} reads before {first} is written")
        return found

    def name(self, source: int, destination: int) -> str:
        """``a3.h1->a7.h2<k>``."""
        return f"{self.sources[source]}->{self.destinations[destination]}"


def short_name(source: str) -> str:
    """``a7.h3`` -> ``L7H3``, ``m7`` -> ``L7MLP``: as unit lists and plots name heads."""
    head = re.fullmatch(r"a(\d+)\.h(\d+)", source)
    mlp = re.fullmatch(r"m(\d+)", source)
    return f"L{head[1]}H{head[2]}" if head else f"L{mlp[1]}MLP" if mlp else source


def pruned(graph: Graph, kept: torch.Tensor) -> torch.Tensor:
    """A set of edges without those that lead nowhere or come from nowhere, to a fixpoint.

    A source needs an outgoing edge and, but for ``input``, an incoming one in any of its slots (MIB, ``apply_topn``).

    Args:
        graph: the graph.
        kept: bool ``[sources, destinations]``.
    """
    kept, node_of = kept & graph.edges, graph.node_of
    while True:
        reached = torch.zeros(len(graph.sources), dtype=torch.int64)
        reached.index_add_(0, node_of[:-1], kept[:, :-1].any(0).long())
        reached[0] = 1
        alive = kept.any(1) & (reached > 0)
        alive_destinations = torch.cat([alive[node_of[:-1]], torch.tensor([True])])
        smaller = kept & alive[:, None] & alive_destinations
        if torch.equal(smaller, kept):
            return kept
        kept = smaller
