"""Read scores of edges, and how stable what they choose is."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from excise.artefacts import Json
from excise.circuits.choose import jaccard
from excise.circuits.graph import Graph, short_name
from excise.errors import ExciseError
from excise.statistics import Statistics


@dataclass(frozen=True)
class Scores:
    """Mean scores over pairs.

    Attributes:
        meta: provenance of the file.
        graph: the graph.
        edges: ``[sources, destinations]``.
        resampled: of each bootstrap resample, ``[resamples, sources, destinations]``.
        by_template: of the pairs of each template, by its name.
    """

    meta: Json
    graph: Graph
    edges: torch.Tensor
    resampled: torch.Tensor
    by_template: dict[str, torch.Tensor]


def read_scores(path: Path) -> Scores:
    """Read what ``excise edges`` wrote, all shards added up.

    Raises:
        ExciseError: it is no such file, or shards are missing.
    """
    statistics = Statistics.read(path)
    if statistics.meta.get("stage") != "edges":
        raise ExciseError(f"{path}: written by excise {statistics.meta.get('stage')}; scores are written by edges")
    totals = {name: torch.from_numpy(value) for name, value in statistics.totals().items()}
    graph = Graph(**statistics.meta["graph"])
    empty = torch.zeros(0, *graph.edges.shape, dtype=torch.float64)
    resampled, templates = empty, {}
    if "resampled" in totals:
        drawn = totals["resampled_pairs"] > 0  # a resample of few pairs may be empty
        resampled = totals["resampled"][drawn] / totals["resampled_pairs"][drawn, None, None]
    if "by_template" in totals:
        means = totals["by_template"] / totals["by_template_pairs"][:, None, None]
        templates = dict(zip(statistics.meta["templates"], means, strict=True))
    return Scores(statistics.meta, graph, totals["edges"] / totals["samples"], resampled, templates)


def described(scores: Scores, kept: torch.Tensor) -> Json:
    """A circuit as its file says it: how large it is, its nodes, and its edges, the strongest first.

    Args:
        scores: the scores of all edges.
        kept: bool ``[sources, destinations]``.
    """
    graph = scores.graph
    order = sorted(kept.nonzero().tolist(), key=lambda place: (-abs(float(scores.edges[tuple(place)])), place))
    nodes = [index for index in range(len(graph.sources)) if kept[index].any()]
    node_scores = scores.edges.sum(1)
    return {
        "edges_in_graph": int(graph.edges.sum()),
        "sizes": {"edges": len(order), "nodes": len(nodes)},
        "nodes": [
            {"node": graph.sources[i], "name": short_name(graph.sources[i]), "score": float(node_scores[i])}
            for i in nodes
        ],
        "edges": [{"edge": graph.name(s, d), "score": float(scores.edges[s, d])} for s, d in order],
    }


def refuse_other_model(scores: Json, run: Json) -> None:
    """Refuse scores of another model; ``scores`` and ``run`` are provenance with ``model``."""
    if scores["model"]["fingerprint"] != run["model"]["fingerprint"]:
        raise ExciseError(
            f"the scores are of {scores['model']['id']}, the pairs are run on {run['model']['id']}, or on other "
            "weights of it: a circuit is one of one model"
        )


def refuse_other_task(scores: Json, judged: Json) -> None:
    """Refuse scores of another model, or of the very pairs that are to judge them.

    Args:
        scores: provenance of the scores.
        judged: the same entries of the pairs at hand: ``model``, ``pairs``.

    Raises:
        ExciseError: they do not belong together.
    """
    refuse_other_model(scores, judged)
    if scores["pairs"]["sha256"] == judged["pairs"]["sha256"]:
        raise ExciseError(
            "these pairs made the scores: a circuit is judged on pairs that had no part in finding it. Give the judge "
            "half of excise pairs."
        )


def stability(scores: Scores, choose: Callable[[torch.Tensor], torch.Tensor]) -> Json:
    """Overlap of the circuits that parts of the pairs choose: Jaccard, 1 = the same edges.

    Args:
        scores: the scores.
        choose: from scores to a circuit.

    Returns:
        ``bootstrap``: every two resamples; ``templates``: every two templates, by name; and their means.
    """
    resamples = [choose(one) for one in scores.resampled]
    templates = {name: choose(one) for name, one in scores.by_template.items()}
    pairs = [jaccard(a, b) for place, a in enumerate(resamples) for b in resamples[:place]]
    names = sorted(templates)
    between: list[Json] = [
        {"templates": [second, first], "jaccard": jaccard(templates[first], templates[second])}
        for place, first in enumerate(names)
        for second in names[:place]
    ]
    return {
        "bootstrap": pairs,
        "bootstrap_mean": sum(pairs) / len(pairs) if pairs else None,
        "templates": between,
        "templates_mean": sum(row["jaccard"] for row in between) / len(between) if between else None,
    }
