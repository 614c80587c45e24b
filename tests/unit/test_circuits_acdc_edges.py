"""Greedy removal of edges against its definition, on tiny random models and where the circuit is known."""

import pytest
import torch

from excise.circuits.acdc_edges import remove_edges
from excise.circuits.batches import make_batches
from excise.circuits.choose import top
from excise.circuits.graph import pruned
from excise.circuits.objectives import value
from excise.circuits.run import prepare, run_circuit
from excise.circuits.stream import Stream
from excise.errors import ExciseError
from tests.unit.circuits import LD, edge_scores, prepared, stream
from tests.unit.known_circuit import CIRCUIT, known_circuit, pairs


def naive_removal(here, given, candidates, objective, threshold):
    """Algorithm 1 of Conmy et al., one whole run per edge."""

    def mean(kept):
        logits = run_circuit(here, given, kept)
        return float(value(objective, logits, given.batch, given.clean_logits).mean())

    kept = pruned(here.graph, candidates)
    current = mean(kept)
    for destination in reversed(range(len(here.graph.destinations))):
        node = int(here.graph.node_of[destination])
        if node >= 0 and not kept[node].any():
            kept[:, destination] = False
            current = mean(kept)
        for source in reversed(range(len(here.graph.sources))):
            if kept[source, destination]:
                trial = kept.clone()
                trial[source, destination] = False
                found = mean(trial)
                if current - found < threshold:
                    kept, current = trial, found
    return pruned(here.graph, kept), current


@pytest.mark.parametrize("together", [1, 3])
@pytest.mark.parametrize(
    ("family", "objective"), [("llama", "kl"), ("llama", LD), ("gpt_neox", "kl"), ("gemma3_text", LD)]
)
def test_removal_of_edges_is_its_definition(family, objective, together):
    here, given = stream(family), prepared(family)
    candidates = top(edge_scores(family), here.graph, 60, "absolute")
    threshold = {"kl": 2e-4, LD: 1e-3}[objective]
    expected, final = naive_removal(here, given, candidates, objective, threshold)
    found = remove_edges(here, [given], candidates, objective=objective, threshold=threshold, together=together)
    assert torch.equal(found.kept, expected)
    assert 0 < expected.sum() < candidates.sum()
    assert found.final == pytest.approx(final, abs=1e-6)


def test_the_known_circuit_is_what_is_left_of_all_edges():
    """Each corruption shows a part; together they are the circuit that was written into the weights."""
    here = Stream(known_circuit())
    left = set()
    for corruption in ("value", "first", "query"):
        (batch,) = make_batches(pairs(corruption), 16)
        given = prepare(here, batch)
        found = remove_edges(here, [given], here.graph.edges, objective=LD, threshold=1e-3)
        left |= {here.graph.name(source, destination) for source, destination in found.kept.nonzero().tolist()}
    assert left == set(CIRCUIT)


def test_removals_that_say_nothing_are_refused():
    here, given = stream("llama"), prepared("llama")
    with pytest.raises(ExciseError, match="removing every edge"):
        remove_edges(here, [given], here.graph.edges, objective=LD, threshold=50.0)
    here = Stream(known_circuit())
    (batch,) = make_batches(pairs("value"), 16)
    circuit = torch.zeros_like(here.graph.edges)
    for name in ("input->a1.h0<v>", "a1.h0->logits"):
        circuit[here.graph.edge(name)] = True
    with pytest.raises(ExciseError, match="no edge can be removed"):
        remove_edges(here, [prepare(here, batch)], circuit, objective=LD, threshold=1e-3)


def test_hooks_that_never_fire_are_an_error(monkeypatch):
    """All edges would be removed, and nothing would have been measured."""
    given = prepared("gpt2")
    monkeypatch.setattr(Stream, "_tap_layer", lambda *_: None)
    with pytest.raises(ExciseError, match="hooks did not run"):
        remove_edges(stream("gpt2"), [given], stream("gpt2").graph.edges, objective=LD, threshold=0.05)
