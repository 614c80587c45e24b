"""The graph of a model, its residual stream, and circuits that are run, on tiny random models of every family."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

from benchmarks.families import tiny
from excise.circuits.batches import make_batches
from excise.circuits.faithfulness import refuse_no_gap
from excise.circuits.graph import Graph, pruned, short_name
from excise.circuits.judge import ends
from excise.circuits.run import run_circuit
from excise.circuits.stream import Stream, Taps
from excise.errors import ExciseError
from excise.models.unpatched import assert_unpatched
from tests.unit.circuits import CLOSE, LD, WRITTEN, error, logits, pairs, prepared, stream

# --- graph ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("graph", "edges"), [(Graph(12, 12), 32_491), (Graph(30, 9), 123_211)])
def test_edges_are_counted_as_mib_counts_them(graph, edges):
    assert int(graph.edges.sum()) == edges


def test_names_and_indices_of_edges():
    graph = Graph(4, 2)
    assert graph.name(*graph.edge("a1.h1->a3.h0<k>")) == "a1.h1->a3.h0<k>"
    assert graph.sources[graph.source(2)] == "m2"
    assert graph.destinations[graph.mlp(2)] == "m2"
    assert [short_name(name) for name in ("a7.h3", "m7", "input")] == ["L7H3", "L7MLP", "input"]
    assert graph.edges[graph.source(1, 0), graph.mlp(1)]
    parallel = Graph(4, 2, parallel=True)
    assert not parallel.edges[parallel.source(1, 0), parallel.mlp(1)]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("a0.h0", "SOURCE->DESTINATION"),
        ("a9.h0->logits", "unknown source"),
        ("a0.h0->m9", "unknown destination"),
        ("m1->m1", "reads before"),
    ],
)
def test_edges_that_do_not_exist_are_refused(name, said):
    with pytest.raises(ExciseError, match=said):
        Graph(2, 2).edge(name)


def test_pruning_leaves_what_is_connected_at_both_ends():
    graph = Graph(2, 1)
    kept = torch.zeros_like(graph.edges)
    for name in ("input->a0.h0<v>", "a0.h0->a1.h0<k>", "a1.h0->logits", "m0->logits", "input->m1", "a0.h0->m0"):
        kept[graph.edge(name)] = True
    left = {graph.name(*place) for place in pruned(graph, kept).nonzero().tolist()}
    assert left == {"input->a0.h0<v>", "a0.h0->a1.h0<k>", "a1.h0->logits", "a0.h0->m0", "m0->logits"}
    kept[graph.edge("input->a0.h0<v>")] = False
    assert not pruned(graph, kept).any()


# --- the gate of a family ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ablation", ["resample", "zero", "mean"])
@pytest.mark.parametrize("family", WRITTEN)
def test_gate(family, ablation):
    """The stream is the sum of its sources; all edges are the model; no edge is the replaced run."""
    here, given, close = stream(family), prepared(family, ablation), CLOSE.get(family, 1e-12)
    biases = sum(layer.output.bias for layer in here.layers if layer.output.bias is not None)
    assert error(given.clean.stacked().sum(2) + biases, given.clean.last) < 3e-7  # the norms are in float32
    assert error(given.clean_logits, logits(family, given.batch.clean)) < close
    assert error(run_circuit(here, given, here.graph.edges), given.clean_logits) < close
    none = run_circuit(here, given, torch.zeros_like(here.graph.edges))
    if ablation == "resample":
        assert error(none, logits(family, given.batch.corrupt)) < close
    else:
        total = (given.replacement.sum(0) + biases).expand_as(given.clean.last)
        assert torch.allclose(none, given.prefix.resumed(here.graph.layers, total), rtol=1e-5, atol=1e-5)


def test_families_whose_heads_cannot_be_told_apart_are_refused():
    with pytest.raises(ExciseError, match="normed over all heads"):
        stream("olmo2")
    with pytest.raises(ExciseError, match="after the residual sum"):
        Stream(tiny("opt", do_layer_norm_before=False))


def test_the_model_is_left_as_it_was():
    here = stream("phi3")
    prepared("phi3")
    attention = here.layers[0].attention
    assert (attention.num_key_value_groups, attention.num_key_value_heads) == (2, 2)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in here.model.modules())
    assert_unpatched(here.model)


def test_query_heads_of_a_group_have_keys_of_their_own():
    here, given = stream("llama"), prepared("llama")
    kept = here.graph.edges.clone()
    kept[:, here.graph.destinations.index("a2.h0<k>")] = False

    class Seen(Taps):
        def heads(self, layer, value):
            if layer == 2:
                self.value = value
            return value

    from excise.circuits.run import Interchange

    seen, runs = Seen(), []
    for edges in (here.graph.edges, kept):
        change = Interchange(here, given.replacement, edges, given.clean.embedding)
        original = change.heads
        change.heads = lambda layer, value, original=original: original(layer, seen.heads(layer, value))
        with torch.no_grad():
            given.prefix.run(given.embeddings, change)
        runs.append(seen.value)
    moved = (runs[0] - runs[1]).abs().amax((0, 1, 3)) > 1e-9
    assert moved.tolist() == [True, False, False, False]


def test_a_circuit_whose_hooks_never_fire_is_an_error(monkeypatch):
    given = prepared("llama")
    both = ends(stream("llama"), [given], LD)
    assert np.abs(both.full - both.empty).max() > 0
    monkeypatch.setattr("excise.circuits.run.Interchange", lambda *_: Taps())
    both = ends(stream("llama"), [given], LD)
    with pytest.raises(ExciseError, match="does not change what is measured"):
        refuse_no_gap(both.full, both.empty)


def test_batches_have_one_length_and_do_not_depend_on_the_order():
    short = [
        replace(pair, id=f"q{pair.id}", clean_ids=pair.clean_ids[:7], corrupt_ids=pair.corrupt_ids[:7])
        for pair in pairs()
    ]
    mixed = [*pairs(), *short]
    batches = make_batches(mixed, 2)
    assert [(len(batch.ids), batch.clean.shape[1], batch.first) for batch in batches] == [
        (2, 7, 5), (1, 7, 5), (2, 9, 5), (1, 9, 5),
    ]  # fmt: skip
    assert [batch.ids for batch in make_batches(mixed[::-1], 2)] == [batch.ids for batch in batches]
    assert all(a.index + 1 == b.index for a, b in pairwise(batches))
