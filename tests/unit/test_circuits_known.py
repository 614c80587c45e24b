"""A circuit that is known exactly: what finds it, and what does not."""

from functools import cache

import pytest
import torch

from excise.circuits import methods
from excise.circuits.batches import make_batches
from excise.circuits.choose import top
from excise.circuits.gradients import scoring
from excise.circuits.objectives import value
from excise.circuits.run import prepare, run_circuit
from excise.circuits.stream import Stream
from tests.unit.known_circuit import CIRCUIT, known_circuit, pairs

SUPPORT = {
    "value": {"input->a1.h0<v>", "a1.h0->logits"},
    "first": {"input->a0.h0<v>", "a0.h0->a1.h0<k>", "a1.h0->logits"},
    "query": {"input->a1.h0<q>", "a1.h0->logits"},
}
"""One corruption never shows the whole circuit."""


@cache
def stream():
    return Stream(known_circuit())


@cache
def prepared(corruption):
    (batch,) = make_batches(pairs(corruption), 64)
    return prepare(stream(), batch)


def worth(given, kept):
    return value("logit-difference", run_circuit(stream(), given, kept), given.batch, given.clean_logits)


@pytest.mark.parametrize("corruption", SUPPORT)
def test_patching_every_edge_finds_exactly_the_circuit(corruption):
    graph, given = stream().graph, prepared(corruption)
    assert (given.clean_logits.argmax(-1) == given.batch.answers[:, 0]).all()
    full, found = worth(given, graph.edges), set()
    for place in graph.edges.nonzero().tolist():
        kept = graph.edges.clone()
        kept[tuple(place)] = False
        if float((full - worth(given, kept)).abs().max()) > 1e-3:
            found.add(graph.name(*place))
    assert found == SUPPORT[corruption]


def test_the_corruptions_together_show_the_circuit_of_the_weights():
    assert set().union(*SUPPORT.values()) == set(CIRCUIT)
    graph = stream().graph
    kept = torch.zeros_like(graph.edges)
    for name in CIRCUIT:
        kept[graph.edge(name)] = True
    for corruption in SUPPORT:
        given = prepared(corruption)
        assert worth(given, kept).mean() == pytest.approx(float(worth(given, graph.edges).mean()), abs=0.02)


def auroc(method, corruption):
    graph, chosen = stream().graph, methods.measured(method)
    with scoring(stream(), objective="logit-difference", points=chosen.points(5), rule=chosen.RULE) as scores_of:
        scores = scores_of(prepared(corruption)).mean(0).abs()
    true = [float(scores[graph.edge(name)]) for name in SUPPORT[corruption]]
    others = [
        float(scores[s, d]) for s, d in graph.edges.nonzero().tolist() if graph.name(s, d) not in SUPPORT[corruption]
    ]
    return sum((a > b) + (a == b) / 2 for a in true for b in others) / len(true) / len(others), scores


@pytest.mark.parametrize("corruption", SUPPORT)
@pytest.mark.parametrize("method", ["eap-ig", "relp-qk", "relp-ig"])
def test_edge_scores_rank_the_circuit_first(method, corruption):
    area, scores = auroc(method, corruption)
    assert area == 1
    graph = stream().graph
    (here,) = [top(scores, graph, len(SUPPORT["first"]), "absolute")] if corruption == "first" else [None]
    if here is not None:
        assert {graph.name(*place) for place in here.nonzero().tolist()} == SUPPORT["first"]


@pytest.mark.parametrize("corruption", ["first", "query"])
def test_relp_as_published_sees_nothing_of_queries_and_keys(corruption):
    area, scores = auroc("relp", corruption)
    assert area < 0.8
    graph = stream().graph
    assert not scores[graph.edge("a0.h0->a1.h0<k>")]
    assert not scores[graph.edge("input->a1.h0<q>")]


def test_one_gradient_is_blind_where_attention_is_sharp():
    """A saturated softmax has next to no gradient: the edge's true effect is 8.9."""
    place = stream().graph.edge("a0.h0->a1.h0<k>")
    assert auroc("eap", "first")[1][place] < 0.1
    assert auroc("eap-ig", "first")[1][place] > 5
