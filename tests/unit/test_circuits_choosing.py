"""Circuits from scores, and how faithfulness, CPR and CMD are computed."""

import numpy as np
import pytest
import torch

from excise.circuits.agreement import agreement
from excise.circuits.choose import chosen, edge_count, greedy, jaccard, ranking, sure, top
from excise.circuits.faithfulness import FRACTIONS, areas, curve, difference, faithfulness, refuse_no_gap
from excise.circuits.graph import Graph
from excise.errors import ExciseError

GRAPH = Graph(2, 2)


def of(names):
    values = torch.zeros(GRAPH.edges.shape, dtype=torch.float64)
    for name, value in names.items():
        values[GRAPH.edge(name)] = value
    return values


def names(kept):
    return {GRAPH.name(*place) for place in kept.nonzero().tolist()}


CHAIN = of({"input->a0.h0<v>": 3, "a0.h0->m1": 2, "m1->logits": 1, "input->a1.h1<q>": -5, "a1.h1->logits": -4})


def test_top_takes_the_best_edges_by_either_rank_and_prunes():
    assert names(top(CHAIN, GRAPH, 3, "signed")) == {"input->a0.h0<v>", "a0.h0->m1", "m1->logits"}
    assert names(top(CHAIN, GRAPH, 2, "absolute")) == {"input->a1.h1<q>", "a1.h1->logits"}
    assert names(top(CHAIN, GRAPH, 3, "absolute")) == {"input->a1.h1<q>", "a1.h1->logits"}  # the third leads nowhere
    assert int(chosen(CHAIN, GRAPH, 3, "absolute").sum()) == 3


def test_equal_scores_keep_the_order_of_the_graph_and_no_edge_is_invented():
    order = ranking(torch.zeros_like(CHAIN), GRAPH, "signed")
    assert order.tolist() == GRAPH.edges.flatten().nonzero()[:, 0].tolist()


def test_greedy_goes_back_from_the_logits():
    values = of({"input->a0.h0<v>": 9, "a0.h0->m1": 2, "m1->logits": 1, "a1.h0->logits": 0.5})
    assert names(greedy(values, GRAPH, 3, "signed")) == {"input->a0.h0<v>", "a0.h0->m1", "m1->logits"}
    assert not greedy(values, GRAPH, 2, "signed").any()  # m1 and a0.h0 are there, but nothing comes from the input


def naive_greedy(values, count):
    """The definition: of all edges into what is there, the best."""
    kept, reached = torch.zeros_like(GRAPH.edges), {-1}
    for _ in range(count):
        open_ = [
            (-float(values[s, d]), s, d)
            for s, d in GRAPH.edges.nonzero().tolist()
            if int(GRAPH.node_of[d]) in reached and not kept[s, d]
        ]
        _, source, destination = min(open_)
        kept[source, destination] = True
        reached.add(source)
    return kept


def test_greedy_is_its_definition():
    from excise.circuits.graph import pruned

    values = torch.randn(GRAPH.edges.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for count in (1, 5, 20, 40):
        assert torch.equal(greedy(values, GRAPH, count, "signed"), pruned(GRAPH, naive_greedy(values, count)))


def test_only_edges_whose_sign_is_sure():
    resampled = torch.stack([CHAIN, CHAIN, CHAIN, torch.where(CHAIN == 2, -CHAIN, CHAIN)])
    left = sure(CHAIN, resampled, 0.9)
    assert not left[GRAPH.edge("a0.h0->m1")]
    assert int((left != 0).sum()) == 4
    assert torch.equal(sure(CHAIN, resampled, 0.75), CHAIN)


@pytest.mark.parametrize("size", [0, 1, 1e9, 0.0001, 2.5, -3])
def test_sizes_that_say_nothing_are_refused(size):
    if size == 1:
        assert edge_count(1, GRAPH) == 1
        return
    with pytest.raises(ExciseError, match="--size"):
        edge_count(size, GRAPH)


def test_overlap():
    first, second = (chosen(CHAIN, GRAPH, count, "absolute") for count in (2, 4))
    assert jaccard(first, second) == 0.5
    assert jaccard(first & ~first, first & ~first) == 1


def test_areas_by_hand():
    """MIB, evaluate_area_under_curve: trapezoids between neighbouring fractions, the axis linear."""
    values = np.array([0.1, 0.3, 0.5, 0.9, 1.2, 1.1, 1.0, 1.4, 0.8, 1.0])
    cpr = cmd = 0.0
    for place in range(9):
        width = FRACTIONS[place + 1] - FRACTIONS[place]
        cpr += width * (values[place] + values[place + 1]) / 2
        cmd += width * (abs(1 - values[place]) + abs(1 - values[place + 1])) / 2
    found = areas(FRACTIONS, values)
    assert found["cpr"] == pytest.approx(cpr, abs=1e-15)
    assert found["cmd"] == pytest.approx(cmd, abs=1e-15)
    perfect = areas(FRACTIONS, np.ones(10))
    assert (perfect["cpr"], perfect["cmd"]) == (pytest.approx(0.999), 0)
    assert perfect["cpr_log"] == pytest.approx(1)


def test_faithfulness_is_a_ratio_of_means():
    full, empty, circuit = np.array([4.0, 2.0]), np.array([-4.0, 0.0]), np.array([4.0, -2.0])
    assert faithfulness(circuit, full, empty) == pytest.approx((1 - -2) / (3 - -2))


def test_a_curve_and_its_intervals():
    generator = np.random.default_rng(0)
    full, empty = generator.normal(4, 0.5, 30), generator.normal(-4, 0.5, 30)
    shares = np.linspace(0.1, 1, 10)[:, None]
    circuits = empty + shares * (full - empty) + generator.normal(0, 0.2, (10, 30))
    found = curve(FRACTIONS, circuits, full, empty, seed=0)
    assert found == curve(FRACTIONS, circuits, full, empty, seed=0)
    for value, (low, high) in zip(found.faithfulness, found.intervals, strict=True):
        assert low < value < high
    low, high = found.area_intervals["cpr"]
    assert low < found.areas["cpr"] < high
    better = difference(FRACTIONS, circuits + 0.5, circuits, full, empty, seed=0)["cpr"]
    assert 0 < better[1] < better[0] < better[2]


def test_a_corruption_that_changes_nothing_is_refused():
    values = np.array([1.0, 2.0, 3.0])
    with pytest.raises(ExciseError, match="does not change what is measured"):
        refuse_no_gap(values, values)
    refuse_no_gap(values, values - 5)


def test_agreement_without_the_strongest_node():
    exact = np.array([9.0, 0.1, -0.2, 0.3, 0.0])
    found = agreement(exact, np.array([9.0, -0.1, 0.2, -0.3, 0.0]), best=1)
    assert found["r"] > 0.99
    assert found["r_without_strongest"] == pytest.approx(-1)
    assert found["best"] == 1
