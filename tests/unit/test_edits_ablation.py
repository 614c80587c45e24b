"""Pruning: what it changes, and that it can be undone."""

import json

import pytest
import torch
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    OPTConfig,
    OPTForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
)

from benchmarks import families
from excise.edits.ablation import prune, pruned, restore
from excise.edits.unit_list import read_units
from excise.errors import ExciseError
from excise.models.loading import identity, load_model
from excise.models.parts import output_projections

IDS = torch.arange(2, 40).view(2, 19)


def selection(*neurons, scale=0.0, model=None):
    meta = {"model": identity(model, "float32")} if model else {}
    return {
        "meta": meta,
        "name": "test",
        "method": "test",
        "unit": "neuron",
        "ablation": "zero",
        "scale": scale,
        "layers": 2,
        "units_per_layer": 24,
        "rows": [{"layer": layer, "neuron": neuron} for layer, neuron in neurons],
    }


def tiny(family):
    torch.manual_seed(0)
    if family == "gpt2":
        return GPT2LMHeadModel(GPT2Config(vocab_size=50, n_embd=16, n_layer=2, n_head=2, n_inner=24)).eval()
    if family == "opt":
        config = OPTConfig(
            vocab_size=50,
            hidden_size=16,
            ffn_dim=24,
            num_hidden_layers=2,
            num_attention_heads=2,
            word_embed_proj_dim=16,
        )
        return OPTForCausalLM(config).eval()
    config = Phi3Config(
        vocab_size=50, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, pad_token_id=0
    )
    return Phi3ForCausalLM(config).eval()


def state(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


@pytest.mark.parametrize("scale", [0.0, 0.5, -1.0])
def test_pruning_scales_what_the_neuron_writes_and_restoring_is_the_identity(tiny_model, scale):
    model = load_model(tiny_model, device="cpu")
    before, logits = state(model), model(IDS).logits
    captured = {}

    def scale_neuron(_module, inputs):
        hidden = inputs[0].clone()
        hidden[..., 5] *= scale
        captured["ran"] = True
        return (hidden,)

    handle = model.model.layers[1].mlp.down_proj.register_forward_pre_hook(scale_neuron)
    expected = model(IDS).logits
    handle.remove()
    assert captured
    with pruned(model, selection((1, 5), scale=scale)):
        torch.testing.assert_close(model(IDS).logits, expected)
        assert not torch.equal(model(IDS).logits, logits)
    after = state(model)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert torch.equal(model(IDS).logits, logits)


@pytest.mark.parametrize("family", ["gpt2", "opt", "phi3"])
def test_zeroing_removes_the_neuron_in_families_without_separate_gates(family):
    model = tiny(family)
    output = {
        "gpt2": lambda: model.transformer.h[0].mlp.c_proj,
        "opt": lambda: model.model.decoder.layers[0].fc2,
        "phi3": lambda: model.model.layers[0].mlp.down_proj,
    }[family]()
    seen = {}
    output.register_forward_hook(lambda _m, inputs, _o: seen.__setitem__("hidden", inputs[0].detach()))
    undo = prune(model, selection((0, 3), (0, 23)))
    model(IDS)
    silent = seen["hidden"].reshape(-1, 24).abs().sum(0) == 0
    assert silent.nonzero().flatten().tolist() == [3, 23]
    weight = output.weight if family != "gpt2" else output.weight.T
    assert (weight.abs().sum(0) == 0).nonzero().flatten().tolist() == [3, 23]
    restore(undo)
    model(IDS)
    assert not (seen["hidden"].reshape(-1, 24).abs().sum(0) == 0).any()


BIASED = ["opt", "gpt2", "gpt_neox"]
CASES = [
    *(pytest.param(family, {}, id=family) for family in ["mistral", "phi3", *BIASED]),
    pytest.param("llama", {"mlp_bias": False}, id="llama"),
    pytest.param("llama", {"mlp_bias": True}, id="llama-biased"),
    pytest.param("opt", {"enable_bias": False}, id="opt-unbiased"),
]
WIDE = torch.arange(3, 41).view(2, 19)


def treated(scales, means):
    """Four neurons of layer 0 and one of layer 2, each with a scale and a mean of its own."""
    where = [(0, 23), (0, 0), (2, 7), (0, 3), (0, 11)]
    rows = [
        {"layer": layer, "neuron": neuron, "scale": scale, "mean": mean}
        for (layer, neuron), scale, mean in zip(where, scales, means, strict=True)
    ]
    return {"unit": "neuron", "scale": None, "ablation": "mean", "rows": rows}


@pytest.mark.parametrize(("family", "changes"), CASES)
@pytest.mark.parametrize(
    ("scales", "means"),
    [
        pytest.param([0.0] * 5, [0.7, -1.5, 2.0, 0.0, 0.3], id="held-at-their-mean"),
        pytest.param([0.3, 0.0, 0.9, 0.5, 0.0], [0.0] * 5, id="dampened"),
        pytest.param([-1.0, 0.0, 0.9, 0.5, 1.0], [0.7, -1.5, 2.0, 0.1, 0.3], id="both"),
    ],
)
def test_an_intervention_replaces_the_activation_and_nothing_else(family, changes, scales, means):
    """Against a hook that writes c + f (a - c) over single activations, to float64 precision."""
    model, chosen = families.tiny(family, **changes), treated(scales, means)
    before, logits = state(model), model(WIDE).logits

    def replace(layer):
        def hook(_module, inputs):
            hidden = inputs[0].clone()
            for row in chosen["rows"]:
                if row["layer"] == layer:
                    value = hidden[..., row["neuron"]]
                    hidden[..., row["neuron"]] = row["mean"] + row["scale"] * (value - row["mean"])
            return (hidden,)

        return hook

    outputs = output_projections(model)
    hooks = [module.register_forward_pre_hook(replace(layer)) for layer, module in enumerate(outputs)]
    expected = model(WIDE).logits
    for hook in hooks:
        hook.remove()
    assert (expected - logits).abs().max() > 1e-3
    with pruned(model, chosen):
        torch.testing.assert_close(model(WIDE).logits, expected, rtol=1e-11, atol=1e-11)
    after = state(model)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert torch.equal(model(WIDE).logits, logits)


def test_interventions_in_each_other_are_undone_in_turn(tiny_model):
    model = load_model(tiny_model, device="cpu")
    model.double()
    first, second = treated([0.0] * 5, [0.7, -1.5, 2.0, 0.1, 0.3]), treated([0.0] * 5, [1.0] * 5)
    for chosen in (first, second):
        for row in chosen["rows"]:
            row["layer"] //= 2
    for row in second["rows"]:
        row["neuron"] = (row["neuron"] + 1) % 24
    before = state(model)
    with pruned(model, first):
        between = state(model)
        with pruned(model, second):
            assert not torch.equal(
                model.model.layers[0].mlp.down_proj.bias, between["model.layers.0.mlp.down_proj.bias"]
            )
        after = state(model)
        assert between.keys() == after.keys() > before.keys()
        assert all(torch.equal(between[name], after[name]) for name in between)
    assert state(model).keys() == before.keys()


def test_an_error_inside_the_block_still_restores(tiny_model):
    model = load_model(tiny_model, device="cpu")
    before = state(model)
    with pytest.raises(RuntimeError), pruned(model, selection((0, 0))):
        raise RuntimeError
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_a_neuron_outside_the_model_is_refused_and_nothing_changes(tiny_model):
    model = load_model(tiny_model, device="cpu")
    before = state(model)
    with pytest.raises(ExciseError, match="layer 2, neuron 0; this model has 2 layers x 24"):
        prune(model, selection((0, 0), (2, 0)))
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_broken_unit_lists_are_refused(tmp_path):
    good = selection((0, 1), (1, 7)) | {"meta": {"model": {}}}
    row, path = {"layer": 0, "neuron": 1}, tmp_path / "v.json"

    def refusal(**changes):
        path.write_text(json.dumps({key: value for key, value in (good | changes).items() if value != "GONE"}))
        with pytest.raises(ExciseError) as caught:
            read_units(path)
        assert str(caught.value).startswith(f"{path}: ")
        return str(caught.value).removeprefix(f"{path}: ").removeprefix("not a unit list: ")

    path.write_text(json.dumps(good))
    assert read_units(path) == good
    assert refusal(meta=None) == "meta is null; must be an object"
    assert refusal(meta={"model": None}) == "meta: model is null; must be an object"
    said = refusal(meta={"model": {}, "references": {"target": {"id": "a"}, "retain": 5}})
    assert said == "meta.references: retain is 5; must be an object"
    assert refusal(name="GONE") == "name is missing; must be text"
    assert refusal(unit="GONE") == "unit is missing; must be text"
    assert "unknown unit 'heads'. Did you mean 'head'" in refusal(unit="heads")
    assert refusal(layers="GONE") == "layers is missing; must be a whole number from 1 to 1000000000"
    assert refusal(layers=0).startswith("layers is 0; must be")
    for scale in ("0.5", True, 1e40, float("nan"), float("inf"), 10**400):
        assert "; must be null or a number from -1000000000 to 1000000000" in refusal(scale=scale)
    assert "unknown ablation 'median'" in refusal(ablation="median")
    assert refusal(ablation=["mean"]) == 'ablation is ["mean"]; must be text'
    for neurons in ({}, "1", 3):
        assert "must be a list" in refusal(rows=neurons)
    assert refusal(rows=[]) == "rows is empty; must have a row or more"
    assert refusal(rows=[row, 5]) == "row 2 is 5; must be an object with layer and neuron"
    for neuron in (1.5, True, "1", -1, 24):
        said = f"row 2: neuron is {json.dumps(neuron)}; must be a whole number from 0 to 23"
        assert refusal(rows=[row, {"layer": 0, "neuron": neuron}]) == said
    assert refusal(rows=[{"layer": "0", "neuron": 1}]) == 'row 1: layer is "0"; must be a whole number from 0 to 1'
    assert refusal(rows=[{"layer": 0}]) == "row 1: neuron is missing; must be a whole number from 0 to 23"
    assert refusal(rows=[row, row]) == "row 2: layer 0, neuron 1 is listed twice, first in row 1"
    assert refusal(scale=None).startswith("row 1: scale is missing; must be a number")
    assert refusal(scale=None, rows=[row | {"scale": float("nan")}]).startswith("row 1: scale is NaN;")
    assert "has a scale of its own; the list's must be null then" in refusal(rows=[row | {"scale": 0.5}])
    assert refusal(ablation="mean").startswith("row 1: mean is missing; must be a number")
    assert refusal(ablation="mean", rows=[row | {"mean": "1"}]).startswith('row 1: mean is "1"; must be a number')
    heads = {"unit": "head", "units_per_layer": 4}
    assert refusal(**heads, rows=[row]) == "row 1: head is missing; must be a whole number from 0 to 3"
    assert refusal(unit="layer", units_per_layer=1, rows=[{"layer": 1}, {"layer": 1}]).startswith(
        "row 2: layer 1 is listed twice"
    )
    first, second = ({"layer": 0, "head": head, "mean": [0.1, 0.2]} for head in (0, 1))
    heads["ablation"] = "mean"
    assert refusal(**heads, rows=[first | {"mean": 0.1}]) == "row 1: mean is 0.1; must be a list"
    assert refusal(**heads, rows=[first, second | {"mean": [1]}]).startswith("row 2: mean has 1 numbers; must have one")
    assert refusal(**heads, rows=[first | {"mean": []}]).startswith("row 1: mean has 0 numbers")
    assert refusal(**heads, rows=[first | {"mean": [0, None]}]).startswith("row 1: mean is null; must be a number")
    path.write_text("{}")
    with pytest.raises(ExciseError, match="meta is missing"):
        read_units(path)
