"""Scores of edges against their definitions, on tiny random models."""

import pytest
import torch

from excise.circuits import methods
from excise.circuits.batches import make_batches
from excise.circuits.measure import Options, check, measure, resample_weights
from excise.circuits.objectives import value
from excise.circuits.stream import Taps
from excise.errors import ExciseError
from excise.statistics import merge
from tests.unit.circuits import LD, edge_scores, error, pairs, prepared, stream

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


def test_relp_ig_is_the_mean_of_relp_qk_over_inputs_up_to_the_clean_prompt():
    chosen = methods.measured("relp-ig")
    assert chosen.points(3) == (1 / 3, 2 / 3, 1.0)
    assert chosen.points(1) == methods.measured("relp-qk").points(1)
    alone = [edge_scores("llama", "relp-qk", points=(point,)) for point in chosen.points(3)]
    assert error(edge_scores("llama", chosen.RULE, points=chosen.points(3)), sum(alone) / 3) < 1e-9
    assert error(alone[0], alone[2]) > 0.01


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
