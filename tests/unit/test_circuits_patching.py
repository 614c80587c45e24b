"""Exact patching and greedy removal against one run per node, on tiny random models."""

import pytest
import torch

from excise.circuits.acdc import FORMS, remove_heads
from excise.circuits.batches import Prefix, embed, make_batches
from excise.circuits.neurons import neuron_scores, where_it_matters
from excise.circuits.objectives import value
from excise.circuits.patching import neuron_changes, neuron_effects, node_effects
from excise.circuits.run import Prepared
from excise.circuits.stream import Stream, Taps
from excise.errors import ExciseError
from tests.unit.circuits import LD, WRITTEN, error, pairs, prepared, stream, without

# --- exact patching ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ablation", ["resample", "zero"])
@pytest.mark.parametrize("family", WRITTEN)
def test_patching_a_node_is_leaving_out_its_edges(family, ablation):
    here, given = stream(family), prepared(family, ablation)
    full = value(LD, given.clean_logits, given.batch, given.clean_logits)
    effects = node_effects(here, given, LD)
    expected = torch.stack([full - without(here, given, node) for node in range(len(here.graph.sources))], 1)
    assert (effects - expected).abs().max() < 1e-6


@pytest.mark.parametrize("family", ["llama", "gpt2", "opt", "gpt_neox"])
def test_patching_a_head_is_what_a_hook_on_the_whole_model_does(family):
    here, given = stream(family), prepared(family)
    model = here.model
    full = value(LD, given.clean_logits, given.batch, given.clean_logits)
    effects = node_effects(here, given, LD)
    for layer, head in ((0, 1), (2, 3)):
        corrupt = {}
        module = here.layers[layer].output
        place = slice(head * here.head_dim, (head + 1) * here.head_dim)
        with torch.no_grad():
            hook = module.register_forward_pre_hook(lambda _, x, corrupt=corrupt: corrupt.update(value=x[0].clone()))
            model(input_ids=given.batch.corrupt)
            hook.remove()

            def patch(_, x, place=place, corrupt=corrupt):
                changed = x[0].clone()
                changed[..., place] = corrupt["value"][..., place]
                return (changed,)

            hook = module.register_forward_pre_hook(patch)
            patched_logits = model(input_ids=given.batch.clean).logits[:, -1]
            hook.remove()
        expected = full - value(LD, patched_logits, given.batch, given.clean_logits)
        assert torch.allclose(effects[:, here.graph.source(layer, head)], expected, atol=1e-6)


def test_batched_patching_is_sequential_patching():
    here, given = stream("llama"), prepared("llama")
    together, alone = (node_effects(here, given, LD, rows=rows) for rows in (64, 1))
    assert (together - alone).abs().max() < 1e-12
    (batch,) = make_batches(pairs(), 8)
    whole = Prefix(here, batch.clean, 0)  # nothing shared
    assert error(whole.run(embed(here, batch.clean)), given.clean_logits) < 1e-12


@pytest.mark.parametrize("family", ["llama", "opt", "gemma3_text"])
def test_patching_neurons(family):
    here, given = stream(family), prepared(family)
    everything = neuron_changes(here, given, 1, range(24)).sum(2)
    assert error(everything, given.corrupt.mlps[1] - given.clean.mlps[1]) < 1e-6
    effects = neuron_effects(here, given, LD, [(0, 3), (2, 5)])
    module = here.layers[2].mlp_output
    difference = given.corrupt.activations[2][..., 5] - given.clean.activations[2][..., 5]

    def replace(_, x):
        changed = x[0].clone().view(len(difference), -1, 24)
        changed[:, given.prefix.start :, 5] += difference
        return (changed.view(x[0].shape),)

    if family != "gemma3_text":  # there the norm after the MLP would move the other neurons' writes too
        hook = module.register_forward_pre_hook(replace)
        found = logits_of_model(here, given)
        hook.remove()
        full = value(LD, given.clean_logits, given.batch, given.clean_logits)
        expected = full - value(LD, found, given.batch, given.clean_logits)
        assert torch.allclose(effects[:, 1], expected, atol=1e-9)


@pytest.mark.parametrize("family", ["llama", "opt", "gpt2"])
def test_first_order_scores_of_neurons_are_their_derivatives(family):
    given = prepared(family)
    scores = neuron_scores(given, LD)
    for layer, neuron in ((0, 3), (2, 5)):
        change = given.clean.activations[layer][..., neuron] - given.corrupt.activations[layer][..., neuron]
        size = torch.zeros(3, 1, dtype=torch.float64, requires_grad=True)

        class Shift(Taps):
            def neurons(self, at, value, layer=layer, neuron=neuron, change=change, size=size):
                if at != layer:
                    return value
                moved = torch.zeros_like(value)
                moved[..., neuron] = 1
                return value + moved * (size * change)[..., None]

        reached = value(LD, given.prefix.run(given.embeddings, Shift()), given.batch, given.clean_logits)
        (expected,) = torch.autograd.grad(reached.sum(), size)
        assert torch.allclose(scores[:, layer, neuron], expected[:, 0], rtol=1e-5, atol=1e-8)
    strongest, sampled = where_it_matters(scores.mean(0).flatten(), 5, 7, 0)
    assert scores.mean(0).flatten().abs().argmax() == strongest[0]
    assert len({*strongest, *sampled}) == 12


def logits_of_model(here, given):
    with torch.no_grad():
        return here.model(input_ids=given.batch.clean).logits[:, -1]


# --- greedy removal ---------------------------------------------------------------------------------------------------


def naive_removal(here, given, form, threshold):
    """The definition, one whole run of the graph per head."""
    removed, decisions = [], []
    full = float(value(LD, given.clean_logits, given.batch, given.clean_logits).mean())
    current = full
    nodes = [here.graph.source(layer, head) for layer in range(here.graph.layers) for head in range(here.heads)]
    for node in nodes if form == "total-drift" else reversed(nodes):
        found = float(without(here, given, *removed, node).mean())
        if abs(found - full) < threshold if form == "total-drift" else current - found < threshold:
            removed.append(node)
            current = found
        decisions.append(found)
    return {here.graph.sources[node] for node in nodes if node not in removed}


@pytest.mark.parametrize("together", [1, 3])
@pytest.mark.parametrize("ablation", ["resample", "zero"])
@pytest.mark.parametrize("form", FORMS)
def test_greedy_removal_is_its_definition(form, ablation, together):
    here, given = stream("llama"), prepared("llama", ablation)
    expected = naive_removal(here, given, form, 0.05)
    found = remove_heads(here, [given], objective=LD, form=form, threshold=0.05, together=together)
    assert {f"a{layer}.h{head}" for layer, head in found.kept.nonzero().tolist()} == expected
    assert 0 < len(expected) < 12


@pytest.mark.parametrize(("threshold", "said"), [(50.0, "removing every head"), (1e-9, "no head can be removed")])
def test_removals_that_say_nothing_are_refused(threshold, said):
    with pytest.raises(ExciseError, match=said):
        remove_heads(stream("llama"), [prepared("llama")], objective=LD, form="total-drift", threshold=threshold)


def test_hooks_that_never_fire_are_an_error(monkeypatch):
    """The silent no-op: every head would be pruned, and nothing would have been measured."""
    monkeypatch.setattr(Stream, "_tap_layer", lambda *_: None)
    given: Prepared = prepared("gpt2")
    with pytest.raises(ExciseError, match="hooks did not run"):
        remove_heads(stream("gpt2"), [given], objective=LD, form="total-drift", threshold=0.05)
