"""The residual stream, circuits and their scores on tiny random models of every family."""

from dataclasses import replace
from functools import cache
from itertools import pairwise

import pytest
import torch

from benchmarks.families import FAMILIES, tiny
from excise.circuits import methods
from excise.circuits.acdc import FORMS, remove_heads
from excise.circuits.batches import Prefix, embed, make_batches
from excise.circuits.gradients import scoring
from excise.circuits.graph import Graph, pruned, short_name
from excise.circuits.measure import Options, check, measure, resample_weights
from excise.circuits.neurons import neuron_scores, where_it_matters
from excise.circuits.objectives import value
from excise.circuits.patching import neuron_changes, neuron_effects, node_effects
from excise.circuits.run import Prepared, mean_writes, prepare, run_circuit
from excise.circuits.stream import Stream, Taps
from excise.data.pairs import Pair
from excise.errors import ExciseError
from excise.models.unpatched import assert_unpatched
from excise.statistics import merge

WRITTEN = [family for family in FAMILIES if family != "olmo2"]
LD = "logit-difference"
# Eager attention of Gemma 2 has its softmax in float32, in whatever dtype the model is.
CLOSE = {"gemma2": 1e-6}


def pairs(count=3, tokens=9, first=5):
    generator = torch.Generator().manual_seed(0)
    found = []
    for index in range(count):
        clean = torch.randint(3, 61, (tokens,), generator=generator).tolist()
        corrupt = [*clean[:first], (clean[first] + 7) % 58 + 3, *clean[first + 1 :]]
        found.append(
            Pair(f"p{index}", tuple(clean), tuple(corrupt), (3 + index,), (20 + index, 30), f"t{index % 2}", "")
        )
    return found


@cache
def stream(family):
    return Stream(tiny(family))


@cache
def prepared(family, ablation="resample"):
    here = stream(family)
    (batch,) = make_batches(pairs(), 8)
    means = mean_writes(here, [batch]) if ablation == "mean" else None
    return prepare(here, batch, ablation, means)


def logits(family, tokens):
    with torch.no_grad():
        return tiny(family)(input_ids=tokens).logits[:, -1]


def error(found, expected):
    return float((found - expected).abs().max() / expected.abs().max())


def edge_scores(family, rule=None, points=(1.0,), objective=LD):
    with scoring(stream(family), objective=objective, points=points, rule=rule) as scores_of:
        return scores_of(prepared(family))


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


# --- scores -----------------------------------------------------------------------------------------------------------


class Shifted(Taps):
    """Adds a multiple of one source's difference to what one destination reads: written from the definition."""

    def __init__(self, here, source, destination, difference, size):
        self.here, self.name, self.size = here, here.graph.destinations[destination], size
        self.shift = difference[:, :, source]

    def residual(self, layer, value):
        self.read = value

    def slot(self, layer, slot, value):
        for head in range(self.here.heads):
            if self.name == f"a{layer}.h{head}<{slot}>":
                read = (self.read + self.size * self.shift)[:, :, None].expand(-1, -1, self.here.heads, -1)
                moved = self.here.project(layer, slot, self.here.norm_attention(layer, read))
                value = torch.cat([value[:, :, :head], moved[:, :, head : head + 1], value[:, :, head + 1 :]], 2)
        return value

    def mlp_input(self, layer, value):
        return value + self.size * self.shift if self.name == f"m{layer}" else value

    def final(self, value):
        return value + self.size * self.shift if self.name == "logits" else value


def naive_scores(family, point):
    """One derivative per edge (of every seventh), with respect to a multiple of its source's difference."""
    here, given = stream(family), prepared(family)
    difference = given.difference()
    mixed = given.corrupt_embeddings + point * (given.embeddings - given.corrupt_embeddings)
    found = torch.zeros(len(given.batch.ids), *here.graph.edges.shape, dtype=torch.float64)
    for source, destination in here.graph.edges.nonzero()[::7].tolist():
        size = torch.zeros(len(given.batch.ids), 1, 1, dtype=torch.float64, requires_grad=True)
        taps = Shifted(here, source, destination, difference, size)
        reached = value(LD, given.prefix.run(mixed, taps), given.batch, given.clean_logits)
        (gradient,) = torch.autograd.grad(reached.sum(), size)
        found[:, source, destination] = gradient[:, 0, 0]
    return found


@pytest.mark.parametrize(("family", "close"), [("gpt2", 1e-10), ("llama", 1e-6)])
def test_eap_and_eap_ig_are_the_derivatives_they_are_said_to_be(family, close):
    """LlamaRMSNorm computes in float32 whatever the dtype: hence the tolerance."""
    clean = naive_scores(family, 1.0)
    tried = clean != 0
    assert tried.sum() > 90
    assert error(edge_scores(family)[tried], clean[tried]) < close
    corrupt, middle = naive_scores(family, 0.0), naive_scores(family, 0.5)
    assert methods.measured("eap-ig").points(2) == (0.0, 0.5)
    assert error(edge_scores(family, points=(0.0, 0.5))[tried], ((corrupt + middle) / 2)[tried]) < close


@pytest.mark.parametrize("rule", [None, "relp", "relp-qk"])
@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neox", "gemma3_text"])
def test_scores_of_a_sources_edges_add_up_to_that_of_the_source(family, rule):
    """The gradient at a source's write is the sum of those at all places that read it, whatever the rule."""
    here, given = stream(family), prepared(family)
    written = {}

    class Grad(Taps):
        def attention_output(self, layer, value):
            written[layer, "heads"] = value
            return value

        def mlp_output(self, layer, value):
            written[layer, "mlp"] = value
            return value

    import contextlib

    from excise.attribution.lxt_patch import patched
    from excise.circuits.gradients import _halve

    with contextlib.ExitStack() as stack:
        patch = stack.enter_context(patched(here.model, rule)) if rule else None
        if patch is not None and patch.halve:
            _halve(here.model, stack)
        embeddings = given.embeddings.clone().requires_grad_()
        logits_ = given.prefix.run(embeddings, Grad())
        total = value(LD, logits_, given.batch, given.clean_logits).sum()
        gradients = dict(zip(written, torch.autograd.grad(total, list(written.values())), strict=True))
    by_node = edge_scores(family, rule).sum(2)
    difference = given.difference()
    for layer in range(here.graph.layers):
        nodes = [(here.graph.source(layer, head), "heads") for head in range(here.heads)]
        for node, place in [*nodes, (here.graph.source(layer), "mlp")]:
            expected = (difference[:, :, node] * gradients[layer, place]).sum((1, 2))
            assert torch.allclose(by_node[:, node], expected, rtol=1e-5, atol=1e-6)


def test_rules_say_which_edges_get_nothing():
    graph = stream("llama").graph
    queries = torch.tensor([name.endswith(("<q>", "<k>")) for name in graph.destinations])
    assert not edge_scores("llama", "relp")[:, :, queries].any()
    assert edge_scores("llama", "relp-qk")[:, :, queries].any()


def test_kl_is_flat_at_the_clean_run():
    assert edge_scores("gpt2", objective="kl").abs().max() < 1e-12
    with pytest.raises(ExciseError, match="exactly zero"):
        check(methods.measured("eap"), Options(objective="kl"))
    assert edge_scores("gpt2", points=(0.0,), objective="kl").abs().max() > 1e-3


def test_shards_of_edges_add_up_to_the_whole():
    here, batches = stream("llama"), make_batches(pairs(5), 2)
    meta = {"method": "eap", "stage": "edges"}

    def run(part):
        return measure(here, methods.measured("eap"), batches, part, options=Options(), meta=dict(meta))

    whole = run(range(3)).totals()
    parts = merge([run(range(1, 3)), run(range(1))]).totals()
    assert whole.keys() == parts.keys()
    assert all((whole[name] == parts[name]).all() for name in whole)
    assert whole["edges"].sum() == pytest.approx(float(whole["by_template"].sum()))
    weights = resample_weights([f"p{n}" for n in range(5)], 8, 0).sum(1)
    assert (whole["resampled_pairs"] == weights.numpy()).all()


def test_scores_of_nothing_are_refused():
    here = stream("gpt2")
    (batch,) = make_batches(pairs(2), 8)
    with pytest.raises(ExciseError, match="needs --ablation resample"):
        measure(
            here, methods.measured("eap-ig"), [batch], range(1), options=Options(ablation="zero"), meta={"method": "x"}
        )


# --- exact patching ---------------------------------------------------------------------------------------------------


def without(here, given, *nodes):
    kept = here.graph.edges.clone()
    kept[list(nodes)] = False
    return value(LD, run_circuit(here, given, kept), given.batch, given.clean_logits)


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
