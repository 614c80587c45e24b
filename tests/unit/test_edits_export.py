"""Export: the folder equals the pruned model, says what was done, and is never left half-made."""

import json
import subprocess
import sys

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
)

from benchmarks import families
from excise import api
from excise.edits.ablation import prune, restore
from excise.edits.export import _pruned as pruned_tensors
from excise.edits.export import model_card
from excise.errors import ExciseError
from excise.models.loading import fingerprint, load_model
from tests.conftest import make_model, make_tokenizer
from tests.unit.test_edits_ablation import IDS, WIDE, selection, treated


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
    assert json.loads((output / "units.json").read_text())["rows"] == chosen["rows"]
    assert json.loads((output / "excise.json").read_text())["fingerprint"] == fingerprint(output)
    assert [entry.name for entry in output.parent.iterdir()] == ["pruned"]


def test_only_what_pruning_changes_is_held_while_the_copy_is_written_and_compared(tiny_model):
    """A tensor that was read from a file keeps all of that file in memory."""
    changed = pruned_tensors(tiny_model, selection((0, 1), (1, 7), model=tiny_model)).changed
    assert {name.rsplit(".", 2)[1] for name in changed} == {"down_proj", "gate_proj", "up_proj"}
    assert all(tensor.untyped_storage().nbytes() == tensor.nbytes for tensor in changed.values())


def test_a_float16_model_is_exported_in_float16(excise, tmp_path):
    """It is not run for that; what runs a model goes on refusing float16."""
    folder, path = make_model(tmp_path / "half", dtype="float16"), tmp_path / "units.json"
    AutoModelForCausalLM.from_pretrained(folder).half().save_pretrained(folder)
    chosen = selection((0, 1), (1, 7), scale=-0.3, model=folder)
    path.write_text(json.dumps(chosen))
    excise("apply", path, folder, "--output", tmp_path / "out")
    exported = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype="auto")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
    prune(model, chosen)
    assert exported.dtype == torch.float16
    assert all(torch.equal(tensor, exported.state_dict()[name]) for name, tensor in model.state_dict().items())
    assert json.loads((tmp_path / "out" / "excise.json").read_text())["fingerprint"] == fingerprint(tmp_path / "out")
    with pytest.raises(ExciseError, match="unknown dtype 'float16'"):
        load_model(folder, dtype="float16")
    path.write_text(json.dumps(chosen | {"scale": 1e8}))
    said = excise("apply", path, folder, "--output", tmp_path / "out", fails=True)
    assert "is not finite in float16: a scale or a mean is too large" in said


def about_mean(folder):
    """A unit list for a model of 3 x 24 neurons: five of them reversed about their mean."""
    rows = treated([-1.0] * 5, [0.7, -1.5, 2.0, 0.1, 0.3])["rows"]
    neurons = [{key: value for key, value in row.items() if key != "scale"} for row in rows]
    return selection(model=folder) | {"layers": 3, "ablation": "mean", "scale": -1.0, "rows": neurons}


@pytest.mark.parametrize("family", ["llama", "gpt2", "opt"])
def test_a_model_with_neurons_about_their_mean_is_exported_as_a_plain_one(excise, tmp_path, family):
    """Llama gets biases by its own switch; the logits are those of the model in memory, and of a second user's."""
    folder, output = tmp_path / family, tmp_path / "out"
    changes = {"mlp_bias": False} if family == "llama" else {}
    families.tiny(family, dtype=torch.float32, **changes).save_pretrained(folder)
    make_tokenizer(folder)
    chosen = about_mean(folder)
    (tmp_path / "units.json").write_text(json.dumps(chosen))
    excise("apply", tmp_path / "units.json", folder, "--output", output)
    exported, said = AutoModelForCausalLM.from_pretrained(output, output_loading_info=True)
    assert not said["missing_keys"]
    assert not said["unexpected_keys"]
    assert type(exported).__module__.startswith("transformers.models.")
    model = load_model(folder, device="cpu")
    unpruned = model(WIDE).logits
    undo = prune(model, chosen)
    torch.testing.assert_close(exported.eval()(WIDE).logits, model(WIDE).logits)
    assert (model(WIDE).logits - unpruned).abs().max() > 1e-2
    restore(undo)
    assert torch.equal(model(WIDE).logits, unpruned)
    assert "5 of 72 MLP neurons (6.94 %) were scaled by -1 about their mean activation" in (
        (output / "README.md").read_text()
    )
    if family == "llama":
        assert exported.config.mlp_bias
        assert not model.config.mlp_bias
        assert not exported.model.layers[1].mlp.down_proj.bias.any()  # a layer without selected neurons


def test_a_family_that_cannot_have_biases_is_not_exported_but_pruned_in_memory(excise, tmp_path):
    families.tiny("mistral", dtype=torch.float32).save_pretrained(tmp_path / "mistral")
    make_tokenizer(tmp_path / "mistral")
    chosen = about_mean(tmp_path / "mistral")
    (tmp_path / "units.json").write_text(json.dumps(chosen))
    said = excise("apply", tmp_path / "units.json", tmp_path / "mistral", "--output", tmp_path / "out", fails=True)
    assert "mistral: a unit that is scaled about its mean (ablation: mean) needs a bias in its MLP" in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mistral", "units.json"]
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "mistral").eval()
    logits = model(WIDE).logits
    undo = api.prune(model, tmp_path / "units.json")
    assert not torch.allclose(model(WIDE).logits, logits, atol=1e-2)
    api.restore(undo)
    assert torch.equal(model(WIDE).logits, logits)


@pytest.mark.parametrize(
    ("scale", "ablation", "words"),
    [
        (0.0, "zero", "were set to zero, chosen"),
        (0.0, "mean", "were held at their mean activation, chosen"),
        (0.5, "zero", "were scaled by 0.5, chosen"),
        (None, "zero", "were scaled, each by a number of its own, from 0.25 to 0.75, chosen"),
    ],
)
def test_the_model_card_says_what_was_done(scale, ablation, words):
    chosen = selection((0, 1), (1, 2), scale=scale) | {"ablation": ablation}
    if scale is None:
        for row, own in zip(chosen["rows"], (0.75, 0.25), strict=True):
            row["scale"] = own
    card = model_card(chosen, {"id": "m", "fingerprint": "f", "revision": None}, [])
    assert words in card
    assert "Base weights: `f`.\n" in card
    assert "above" not in card


def test_a_full_disk_during_export_leaves_nothing_behind(tmp_path, tiny_model):
    path = tmp_path / "units.json"
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
    assert [entry.name for entry in tmp_path.iterdir()] == ["units.json"]


def test_a_unit_list_of_another_model_is_refused(excise, tmp_path, tiny_model, other_model):
    path = tmp_path / "units.json"
    path.write_text(json.dumps(selection((0, 1), model=tiny_model)))
    message = excise("apply", path, other_model, "--output", tmp_path / "out", fails=True)
    assert "The numbers of units mean nothing in other weights" in message
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
