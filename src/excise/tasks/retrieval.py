"""Rank documents by the embeddings, and judge the ranking query by query with trec_eval's own numbers."""

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor

from excise.artefacts import Json
from excise.errors import ExciseError
from excise.tasks.measurement import About, Measurement, Metric, Values

DEPTH = 100
"""Ranks that are judged: recall@100 sees the deepest."""

METRICS = {"ndcg@10": "nDCG@10", "recall@100": "R@100", "mrr@10": "RR"}
"""Our name of a metric: its name in ir-measures. ``mrr@10`` is the reciprocal rank where that is at most 10, else 0."""

TITLES = {"ndcg@10": "nDCG@10", "recall@100": "recall@100", "mrr@10": "MRR@10"}
"""What people call them."""

Run = dict[str, dict[str, float]]
"""Query: document: score."""


def about_of(model: Json) -> About:
    """What an encoder is among variants, as its identity says; one that was made of no other is the baseline."""
    if "variant" in model:
        return About(**model["variant"])
    return About(kind="candidate" if "base" in model else "baseline")


def rank(queries: Tensor, documents: Tensor, query_ids: Sequence[str], document_ids: Sequence[str]) -> Run:
    """The best documents of each query by the inner product, ``DEPTH`` and all that tie with the last of them.

    Which of two equal scores comes first is left to the judge (trec_eval: the larger document id), so all of a tie must
    be there.

    Args:
        queries: ``[queries, hidden]``, of length 1 under cosine similarity.
        documents: ``[documents, hidden]``.
        query_ids: their ids.
        document_ids: their ids.

    Raises:
        ExciseError: the embeddings have different widths, or are not finite.
    """
    if queries.shape[1] != documents.shape[1]:
        raise ExciseError(f"embeddings of {queries.shape[1]} and {documents.shape[1]} numbers cannot be compared")
    if not (queries.isfinite().all() and documents.isfinite().all()):
        raise ExciseError("some embedding is not a finite number; nothing can be ranked")
    run: Run = {}
    for start in range(0, len(queries), 256):
        scores = queries[start : start + 256] @ documents.T
        last = scores.topk(min(DEPTH, len(documents))).values[:, -1:]
        for row, threshold, name in zip(scores, last, query_ids[start : start + 256], strict=True):
            places = (row >= threshold).nonzero().flatten().tolist()
            run[name] = {document_ids[place]: float(row[place]) for place in places}
    return run


def judge(run: Run, queries: Sequence[Json]) -> dict[str, Values]:
    """Values of every metric of ``METRICS``, one per query in the order of ``queries``, by ir-measures and pytrec_eval.

    Args:
        run: of ``rank``.
        queries: rows ``{id, relevant}``.

    Raises:
        ExciseError: ir-measures is not installed.
    """
    try:
        import ir_measures
    except ImportError as error:
        raise ExciseError("judging needs ir-measures: install excise[retrieval]") from error
    grades = {query["id"]: query["relevant"] for query in queries}
    place = {query["id"]: number for number, query in enumerate(queries)}
    measures = {ir_measures.parse_measure(official): name for name, official in METRICS.items()}
    values: dict[str, Values] = {name: np.zeros(len(queries)) for name in METRICS}
    for found in ir_measures.pytrec_eval.iter_calc(list(measures), grades, run):
        values[measures[found.measure]][place[found.query_id]] = found.value
    values["mrr@10"][values["mrr@10"] < 1 / 10 - 1e-9] = 0.0
    return values


def fidelity(vectors: Tensor, dense: Tensor) -> Values:
    """Cosine between each embedding and that of the dense model, ``[texts]``: what changed, without any judgement."""
    cosine = torch.nn.functional.cosine_similarity(vectors.double(), dense.double(), dim=-1)
    return np.asarray(cosine.numpy(), dtype=np.float64)


def fidelity_of(
    name: str, label: str, vectors: Tensor, dense: Tensor, texts: Sequence[Json], settings: Json, item: str
) -> Measurement:
    """Cosine of every embedding with the dense model's."""
    title = f"cosine with the dense embeddings, {label}"
    return Measurement(
        task="retrieval",
        name=f"{name}-fidelity",
        label=f"{label}, embeddings of {item}s",
        item=item,
        items=[row["id"] for row in texts],
        metrics={"cosine": Metric.of(fidelity(vectors, dense), direction="higher", title=title)},
        settings=settings,
    )


def measure(
    name: str,
    label: str,
    vectors: Mapping[str, Tensor],
    dense: Mapping[str, Tensor] | None,
    documents: Sequence[Json],
    queries: Sequence[Json],
    settings: Json,
) -> list[Measurement]:
    """What one encoder does on one collection.

    Args:
        name: of the collection, in addresses such as NAME.ndcg@10.
        label: what people read.
        vectors: ``documents`` ``[documents, hidden]`` and, where there are queries, ``queries`` ``[queries, hidden]``.
        dense: the same of the dense model, for the asymmetric ranking (its documents, these queries: an index that is
            there already stays) and the fidelity.
        documents: rows ``{id, text}`` in the order of the embeddings.
        queries: rows ``{id, text, relevant}``; may be empty.
        settings: equal for all variants that are compared.
    """
    measurement = partial(Measurement, task="retrieval", settings=settings)
    found = []
    document_ids, query_ids = [row["id"] for row in documents], [row["id"] for row in queries]
    sides = [("", vectors["documents"], "")]
    if dense is not None:
        sides.append(("-asymmetric", dense["documents"], ", documents by the dense model"))
    for ending, searched, said in sides if queries else []:
        values = judge(rank(vectors["queries"], searched, query_ids, document_ids), queries)
        metrics = {
            metric: Metric.of(each, direction="higher", title=f"{TITLES[metric]}, {label}{said}")
            for metric, each in values.items()
        }
        found.append(
            measurement(
                name=f"{name}{ending}",
                label=f"{label}{said}",
                item="query",
                items=query_ids,
                metrics=metrics,
            )
        )
    if dense is not None:
        both = vectors["documents"], dense["documents"]
        found.append(fidelity_of(name, label, *both, documents, settings, "document"))
    return found
