"""An export changes the weights that it must and copies every other byte."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from excise.artefacts import read_json
from excise.edits.ablation import prune
from excise.edits.copying import with_entries
from excise.errors import ExciseError
from excise.models.files import INDEX, stored
from excise.models.loading import fingerprint, identity, load_model
from tests.conftest import make_model
from tests.unit.test_models_files import split

OLD = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 16, "intermediate_size": 24,
    "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256,
    "vocab_size": 320, "rope_theta": 500000.0, "rope_scaling": None, "rms_norm_eps": 1e-06, "hidden_act": "silu",
    "tie_word_embeddings": False, "attention_bias": False, "bos_token_id": 0, "eos_token_id": 1,
    "torch_dtype": "bfloat16", "transformers_version": "4.40.0",
}  # fmt: skip
"""config.json as transformers 4 wrote it."""


@pytest.fixture
def old(tmp_path):
    """A folder in the dialect of transformers 4, with odd spacing and tensors of three dtypes."""
    folder = make_model(tmp_path / "old", rope_theta=500000.0)
    (folder / "config.json").write_text(json.dumps(OLD, indent=3) + "\n\n")
    tokenizer = read_json(folder / "tokenizer_config.json") | {"tokenizer_class": "PreTrainedTokenizerFast"}
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer, indent=5))
    (folder / "LICENSE").write_text("a licence")
    (folder / "modeling_evil.py").write_text("raise SystemExit")
    tensors = load_file(folder / "model.safetensors")
    for name in tensors:
        kind = torch.float32 if "norm" in name else torch.float16 if "layers.0" in name else torch.bfloat16
        tensors[name] = tensors[name].to(kind)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt", "made": "by hand"})
    return folder


def neurons(folder: Path, path: Path, *, scale: float = 0.0, mean: bool = False) -> Path:
    """A unit list of two neurons of layer 1, and one of layer 0 where the scale is 0."""
    rows = [{"layer": 1, "neuron": 7}, {"layer": 1, "neuron": 20}] + ([{"layer": 0, "neuron": 3}] if not scale else [])
    chosen = {
        "meta": {"model": identity(folder, "float32")}, "name": "test", "method": "test", "unit": "neuron",
        "scale": scale, "ablation": "mean" if mean else "zero", "layers": 2, "units_per_layer": 24,
        "rows": [row | ({"mean": 0.7} if mean else {}) for row in rows],
    }  # fmt: skip
    path.write_text(json.dumps(chosen))
    return path


def test_only_the_pruned_rows_and_columns_change(old, tmp_path, excise):
    excise("apply", neurons(old, tmp_path / "n.json"), old, "--output", tmp_path / "out")
    out = tmp_path / "out"
    assert {path.name for path in out.iterdir()} == {
        "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "LICENSE",
        "model.safetensors", "README.md", "units.json", "excise.json",
    }  # fmt: skip
    for name in ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "LICENSE"):
        assert (out / name).read_bytes() == (old / name).read_bytes(), name
    before, after = ((folder / "model.safetensors").read_bytes() for folder in (old, out))
    length = 8 + int.from_bytes(before[:8], "little")
    assert after[:length] == before[:length]  # names, dtypes, places and metadata
    assert len(after) == len(before)
    tensors, originals = load_file(out / "model.safetensors"), load_file(old / "model.safetensors")
    for layer, chosen in ((0, [3]), (1, [7, 20])):
        for part in ("gate", "up"):
            originals[f"model.layers.{layer}.mlp.{part}_proj.weight"][chosen] = 0
        originals[f"model.layers.{layer}.mlp.down_proj.weight"][:, chosen] = 0
    for name, tensor in originals.items():
        assert tensors[name].dtype == tensor.dtype
        assert torch.equal(tensors[name], tensor), name
    assert load_model(out).config.rope_parameters["rope_theta"] == 500000.0


def test_the_files_of_a_split_model_keep_their_names_and_the_untouched_their_bytes(old, tmp_path, excise):
    folder = split(old, tmp_path / "parts", "model.safetensors-{}-of-2.safetensors")
    touched = stored(folder)["model.layers.1.mlp.down_proj.weight"].file
    excise("apply", neurons(folder, tmp_path / "n.json", scale=0.5), folder, "--output", tmp_path / "out")
    for path in folder.glob("model*.safetensors"):
        same = (tmp_path / "out" / path.name).read_bytes() == path.read_bytes()
        assert same is (path != touched), path.name
    assert (tmp_path / "out" / INDEX).read_bytes() == (folder / INDEX).read_bytes()


@pytest.mark.parametrize("parts", [False, True])
def test_added_biases_are_all_that_the_configuration_gets(old, tmp_path, excise, parts):
    folder = split(old, tmp_path / "parts") if parts else old
    excise("apply", neurons(folder, tmp_path / "n.json", mean=True), folder, "--output", tmp_path / "out")
    before, after = ((where / "config.json").read_text() for where in (folder, tmp_path / "out"))
    assert after.replace('"mlp_bias": true,\n   ', "") == before
    found, originals = stored(tmp_path / "out"), stored(folder)
    added = found.keys() - originals.keys()
    assert len(added) == 6
    assert all(name.endswith("_proj.bias") and "mlp" in name for name in added)
    for name in added:  # beside their weights, and in their dtype
        weight = name.removesuffix("bias") + "weight"
        assert (found[name].file.name, found[name].dtype) == (found[weight].file.name, originals[weight].dtype)
    assert {name: tensor.dtype for name, tensor in found.items() if name in originals} == {
        name: tensor.dtype for name, tensor in originals.items()
    }
    if parts:
        index, old_index = read_json(tmp_path / "out" / INDEX), read_json(folder / INDEX)
        assert index["weight_map"] == {name: tensor.file.name for name, tensor in found.items()}
        assert index["metadata"]["total_size"] == old_index["metadata"]["total_size"] + 2 * 2 * (24 + 24 + 16)
    else:
        with safe_open(str(tmp_path / "out" / "model.safetensors"), "pt") as file:
            assert file.metadata() == {"format": "pt", "made": "by hand"}
    card = (tmp_path / "out" / "README.md").read_text()
    assert "`mlp_bias` in config.json" in card
    assert "SGLang" in card


def test_the_exported_model_is_the_one_that_was_judged_and_the_card_says_where_it_is_rounded(old, tmp_path, excise):
    path = neurons(old, tmp_path / "n.json", scale=-0.3)
    excise("apply", path, old, "--output", tmp_path / "out")
    model = load_model(old, device="cpu")
    prune(model, read_json(path))
    exported = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32)
    for name, tensor in exported.state_dict().items():
        expected = model.state_dict()[name]
        if name == "model.layers.1.mlp.down_proj.weight":
            assert torch.equal(tensor, expected.bfloat16().float())
            assert not torch.equal(tensor, expected)
        else:
            assert torch.equal(tensor, expected), name
    assert (
        "judged in float32. Its changed weights are stored in bfloat16" in (tmp_path / "out" / "README.md").read_text()
    )
    excise("apply", neurons(old, tmp_path / "n.json"), old, "--output", tmp_path / "out")  # zeros are not rounded
    assert "rounded" not in (tmp_path / "out" / "README.md").read_text()


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16, torch.float16])
def test_every_stored_dtype_is_kept_whatever_the_configuration_says(tmp_path, excise, kind):
    folder = make_model(tmp_path / "model", dtype="bfloat16")
    tensors = {name: tensor.to(kind) for name, tensor in load_file(folder / "model.safetensors").items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    excise("apply", neurons(folder, tmp_path / "n.json", scale=0.5), folder, "--output", tmp_path / "out")
    expected = tensors["model.layers.1.mlp.down_proj.weight"].double()
    expected[:, [7, 20]] *= 0.5
    found = load_file(tmp_path / "out" / "model.safetensors")
    assert {tensor.dtype for tensor in found.values()} == {kind}
    assert torch.equal(found["model.layers.1.mlp.down_proj.weight"], expected.to(kind))


def test_an_export_that_is_not_what_was_judged_is_refused(tiny_model, tmp_path, excise, monkeypatch):
    from excise.edits import export

    def other(model, selection):
        return prune(model, selection | {"rows": selection["rows"][:1]})

    calls = iter([prune, other])
    monkeypatch.setattr(export, "prune", lambda model, selection: next(calls)(model, selection))
    path = neurons(tiny_model, tmp_path / "n.json")
    said = excise("apply", path, tiny_model, "--output", tmp_path / "out", fails=True)
    assert "is not that of the model that was judged" in said
    assert not (tmp_path / "out").exists()


def test_a_disk_that_gives_back_other_bytes_is_noticed(tiny_model, tmp_path, excise, monkeypatch):
    copy = shutil.copyfile

    def spoiled(source, target):
        copy(source, target)
        if Path(target).suffix == ".safetensors":
            with open(target, "r+b") as file:
                file.seek(-1, 2)
                file.write(b"\x01")

    monkeypatch.setattr(shutil, "copyfile", spoiled)
    path = neurons(tiny_model, tmp_path / "n.json")
    assert "is the disk sound?" in excise("apply", path, tiny_model, "--output", tmp_path / "out", fails=True)


def test_pruning_an_exported_model_again_starts_from_its_bytes(old, tmp_path, excise):
    excise("apply", neurons(old, tmp_path / "n.json"), old, "--output", tmp_path / "one")
    excise("apply", neurons(tmp_path / "one", tmp_path / "m.json"), tmp_path / "one", "--output", tmp_path / "two")
    assert fingerprint(tmp_path / "one") == fingerprint(tmp_path / "two")  # the same neurons: nothing more to do


@pytest.mark.parametrize(
    ("text", "after"),
    [
        ('{"a": 1, "mlp_bias" :false }\n', '{"a": 1, "mlp_bias": true }\n'),
        ('{\n\t"a": 1\n}', '{\n\t"mlp_bias": true,\n\t"a": 1\n}'),
        ('{"a": 1}', '{"mlp_bias": true, "a": 1}'),
        ('{"a": 1, "mlp_bias": null}', '{"a": 1, "mlp_bias": true}'),
    ],
)
def test_an_entry_is_set_without_touching_another_byte(text, after):
    assert with_entries(text, {"mlp_bias": True}, "config.json") == after


def test_an_entry_that_cannot_be_set_alone_is_refused():
    with pytest.raises(ExciseError, match="mlp_bias cannot be set in it without changing more"):
        with_entries('{"inner": {"mlp_bias": false}, "mlp_bias": false}', {"mlp_bias": True}, "config.json")


ASK = """
import json, sys, torch, transformers
from transformers import AutoModelForCausalLM, AutoTokenizer
model = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.float32)
ids = AutoTokenizer.from_pretrained(sys.argv[1])("the cat and the rain")["input_ids"]
print(json.dumps([transformers.__version__, ids, model(torch.tensor([ids])).logits[0].tolist()]))
"""
OLDER = ("transformers==4.57.6", "tokenizers==0.22.1", "huggingface-hub==0.36.0")


def test_what_transformers_4_loads_it_still_loads(old, tmp_path, excise):
    """The export of a folder in its dialect, in both versions: the same tokens, the same logits."""
    chosen, output, older = neurons(old, tmp_path / "units.json"), tmp_path / "pruned", tmp_path / "older"
    excise("apply", chosen, old, "--output", output)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", older, *OLDER]
    subprocess.run(pip, check=True)

    def ask(folder, first=()):
        path = os.pathsep.join(map(str, [*first, *sys.path]))
        environment = os.environ | {"PYTHONPATH": path, "HF_HUB_OFFLINE": "1"}
        found = subprocess.run([sys.executable, "-c", ASK, folder], env=environment, capture_output=True, text=True)
        assert found.returncode == 0, found.stderr
        return json.loads(found.stdout.splitlines()[-1])

    answers = [ask(output), ask(output, [older])]
    assert [version.partition(".")[0] for version, _, _ in answers] == ["5", "4"]
    assert answers[0][1] == answers[1][1]
    torch.testing.assert_close(*(torch.tensor(logits) for _, _, logits in answers), rtol=1e-5, atol=1e-6)
    assert not torch.allclose(torch.tensor(ask(old)[2]), torch.tensor(answers[0][2]))  # it was pruned
