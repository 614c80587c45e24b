"""Pruning: what it changes, that it can be undone, and that the export equals it."""

import json
import subprocess
import sys

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    OPTConfig,
    OPTForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
)

from excise.artefacts import write_json
from excise.errors import ExciseError
from excise.pruning import prune, pruned, read_selection, restore
from excise.resources.models import fingerprint, identity, load_model

IDS = torch.arange(2, 40).view(2, 19)


def selection(*neurons, factor=0.0, model=None):
    meta = {"model": identity(model, "float32")} if model else {}
    return {
        "meta": meta,
        "name": "test",
        "method": "test",
        "factor": factor,
        "layers": 2,
        "neurons_per_layer": 24,
        "neurons": [{"layer": layer, "neuron": neuron} for layer, neuron in neurons],
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


@pytest.mark.parametrize("factor", [0.0, 0.5, -1.0])
def test_pruning_scales_what_the_neuron_writes_and_restoring_is_the_identity(tiny_model, factor):
    model = load_model(tiny_model, device="cpu")
    before, logits = state(model), model(IDS).logits
    captured = {}

    def scale_neuron(_module, inputs):
        hidden = inputs[0].clone()
        hidden[..., 5] *= factor
        captured["ran"] = True
        return (hidden,)

    handle = model.model.layers[1].mlp.down_proj.register_forward_pre_hook(scale_neuron)
    expected = model(IDS).logits
    handle.remove()
    assert captured
    with pruned(model, selection((1, 5), factor=factor)):
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


def test_broken_neuron_lists_are_refused(tmp_path):
    path = tmp_path / "v.json"
    write_json(path, {}, selection((0, 1), (0, 1)) | {"meta": {}})
    with pytest.raises(ExciseError, match="listed twice"):
        read_selection(path)
    path.write_text('{"neurons": [{"layer": 0}], "factor": 0}')
    with pytest.raises(ExciseError, match="not a neuron list"):
        read_selection(path)


def test_the_exported_model_gives_the_same_logits_bit_for_bit(excise, tmp_path, tiny_model):
    chosen = selection((0, 1), (1, 7), (1, 20), model=tiny_model)
    path = tmp_path / "neurons é 'x.json"
    path.write_text(json.dumps(chosen))
    output = tmp_path / "out dir" / "pruned"
    excise("apply", path, tiny_model, "--output", output)
    exported = AutoModelForCausalLM.from_pretrained(output).eval()
    model = load_model(tiny_model, device="cpu")
    prune(model, chosen)
    assert torch.equal(exported(IDS).logits, model(IDS).logits)
    assert "3 of 48 MLP neurons" in (output / "README.md").read_text()
    assert json.loads((output / "neurons.json").read_text())["neurons"] == chosen["neurons"]
    assert json.loads((output / "excise.json").read_text())["fingerprint"] == fingerprint(output)
    assert [entry.name for entry in output.parent.iterdir()] == ["pruned"]


def test_a_full_disk_during_export_leaves_nothing_behind(tmp_path, tiny_model):
    path = tmp_path / "neurons.json"
    path.write_text(json.dumps(selection((0, 1), model=tiny_model)))
    script = (
        "import resource, sys\n"
        "from excise.cli import main\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    command = [sys.executable, "-c", script, "apply", path, tiny_model, "--output", tmp_path / "out"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 1, result.stderr
    assert "cannot be written" in result.stderr
    assert [entry.name for entry in tmp_path.iterdir()] == ["neurons.json"]


def test_a_neuron_list_of_another_model_is_refused(excise, tmp_path, tiny_model, other_model):
    path = tmp_path / "neurons.json"
    path.write_text(json.dumps(selection((0, 1), model=tiny_model)))
    message = excise("apply", path, other_model, "--output", tmp_path / "out", fails=True)
    assert "Neuron numbers mean nothing in other weights" in message
    assert not (tmp_path / "out").exists()


def test_the_fingerprint_does_not_depend_on_the_split_into_files(tmp_path, tiny_model):
    model = load_model(tiny_model, device="cpu")
    model.save_pretrained(tmp_path, max_shard_size="5KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    assert fingerprint(tmp_path) == fingerprint(tiny_model)
    with torch.no_grad():
        model.model.norm.weight[0] += 1
    model.save_pretrained(tmp_path / "changed")
    assert fingerprint(tmp_path / "changed") != fingerprint(tiny_model)
