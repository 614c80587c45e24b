"""Model folders: linked, converted from GGUF, inspected."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch

from benchmarks.families import FAMILIES, tiny
from excise.artefacts import read_json
from excise.errors import ExciseError
from excise.models.loading import facts, fingerprint, identity, load_model, max_positions
from tests.conftest import make_tokenizer


@pytest.fixture
def copy(tiny_model, tmp_path):
    """The tiny model in a folder that may be written to."""
    return Path(shutil.copytree(tiny_model, tmp_path / "my “model”"))


def test_a_local_folder_is_linked_to(copy, tmp_path, excise, monkeypatch):
    for name in ("pytorch_model.bin", "modeling_evil.py", "optimizer.pt", "consolidated.safetensors", "LICENSE"):
        (copy / name).write_bytes(b"x")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "out").mkdir()
    for name in ("old", "excise.json"):  # a folder of excise's own
        (tmp_path / "out" / name).touch()
    excise("fetch-model", "--source", copy.name, "--output", "out")
    links = {path.name: path.readlink() for path in (tmp_path / "out").iterdir() if path.is_symlink()}
    assert links.keys() == {
        "LICENSE", "config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json",
    }  # fmt: skip
    assert all(target == copy / name for name, target in links.items())
    assert {path.name for path in (tmp_path / "out").iterdir()} == links.keys() | {"excise.json"}
    known = identity(tmp_path / "out", "float32")
    assert known == {
        "id": copy.name,
        "revision": None,
        "fingerprint": fingerprint(tmp_path / "out"),
        "dtype": "float32",
    }
    assert str(tmp_path) not in (tmp_path / "out" / "excise.json").read_text()
    load_model(tmp_path / "out")


def test_sharded_weights_are_the_same_model(copy, tmp_path, excise):
    from transformers import AutoModelForCausalLM

    AutoModelForCausalLM.from_pretrained(copy).save_pretrained(tmp_path / "parts", max_shard_size="10KB")
    shutil.copy(copy / "tokenizer.json", tmp_path / "parts")
    excise("fetch-model", "--source", tmp_path / "parts", "--output", tmp_path / "out")
    assert len(list((tmp_path / "out").glob("model-*-of-*.safetensors"))) > 1
    assert fingerprint(tmp_path / "out") == fingerprint(copy)
    next((tmp_path / "parts").glob("model-00001*")).unlink()
    said = excise("fetch-model", "--source", tmp_path / "parts", "--output", tmp_path / "new", fails=True)
    assert "model-00001-of-" in said
    assert "not there" in said


def dangle(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to("blobs/nowhere")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: (f / "config.json").unlink(), "no config.json in it"),
        (
            lambda f: (f / "model.safetensors").rename(f / "pytorch_model.bin"),
            "it has pytorch_model.bin. Pickled weights",
        ),
        (lambda f: (f / "config.json").write_text('{"model_type": "distilbert"}'), "unknown model type 'distilbert'"),
        (lambda f: (f / "config.json").write_text("{"), "config.json"),
        (lambda f: (f / "config.json").write_text("[1]"), "config.json: expected a JSON object, found list"),
        (lambda f: dangle(f / "model.safetensors"), "model.safetensors is a link to blobs/nowhere"),
        (lambda f: dangle(f / "generation_config.json"), "generation_config.json is a link to blobs/nowhere"),
    ],
)
def test_an_unusable_folder_is_refused_and_the_old_one_stays(copy, tmp_path, excise, spoil, message):
    spoil(copy)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "excise.json").touch()
    assert message in excise("fetch-model", "--source", copy, "--output", tmp_path / "out", fails=True)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["excise.json"]
    assert {path.name for path in tmp_path.iterdir()} == {"out", copy.name}


def test_an_error_names_no_folder_that_is_gone(copy, tmp_path, excise):
    (copy / "model.safetensors").write_bytes(b"")
    said = excise("fetch-model", "--source", copy, "--output", tmp_path / "out", fails=True)
    assert f"{tmp_path / 'out'}/model.safetensors: not a readable safetensors file" in said
    assert ".tmp" not in said


def test_what_a_killed_fetch_left_is_removed(copy, tmp_path, excise):
    import os
    import socket
    import subprocess
    import sys

    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    start = f".out.{socket.gethostname()}-"
    for name in (f"{start}{dead.pid}.tmp", f"{start}{os.getppid()}.tmp", ".out.elsewhere-1.tmp"):
        (tmp_path / name).mkdir()
    excise("fetch-model", "--source", copy, "--output", tmp_path / "out")
    left = {path.name for path in tmp_path.iterdir() if path.name.startswith(".")}
    assert left == {f"{start}{os.getppid()}.tmp", ".out.elsewhere-1.tmp"}


def test_inspect_says_what_the_model_is(copy, tmp_path, excise):
    excise("fetch-model", "--source", copy, "--output", tmp_path / "out")
    excise("inspect", "--model", tmp_path / "out", "--need", "neuron=48", "--output", tmp_path / "m.json")
    facts = read_json(tmp_path / "m.json")
    model = load_model(copy)
    expected = {
        "id": copy.name, "architecture": "llama", "layers": 2, "neurons_per_layer": 24, "neurons": 48,
        "hidden_size": 16, "vocabulary": model.config.vocab_size, "max_positions": 256, "dtype_on_disk": ["F32"],
        "parameters": sum(p.numel() for p in model.parameters()), "fingerprint": fingerprint(copy),
        "tied_embeddings": False, "revision": None,
        "control_tokens": {"first": [], "windows_begin_with": None, "end_a_generation": ["</s>"]},
    }  # fmt: skip
    meta = facts.pop("meta")
    assert facts == expected
    assert meta["model"]["fingerprint"] == fingerprint(copy)
    said = excise("inspect", "--model", tmp_path / "out", "--need", "neuron=49", "--output", tmp_path / "x", fails=True)
    assert "49 units of kind neuron are to be selected; it has 48 (2 layers x 24)" in said
    excise(
        "inspect", "--model", copy, "--need-bias", "neuron", "--output", tmp_path / "m.json"
    )  # llama has a switch for them
    assert "unknown dtype" in excise(
        "inspect", "--model", copy, "--dtype", "half", "--output", tmp_path / "x", fails=True
    )


def test_inspect_refuses_a_family_that_could_not_be_saved_with_biases(tmp_path, excise):
    tiny("mistral", dtype=torch.float32).save_pretrained(tmp_path / "m")
    make_tokenizer(tmp_path / "m")
    said = excise("inspect", "--model", tmp_path / "m", "--need-bias", "neuron", "--output", tmp_path / "x", fails=True)
    assert "mistral: a unit that is scaled about its mean" in said
    assert "can be: llama, opt, gpt2, gpt_neox" in said


def test_inspect_notices_changed_weights_and_files(copy, other_model, tmp_path, excise):
    excise("fetch-model", "--source", copy, "--output", tmp_path / "out")
    command = ("inspect", "--model", tmp_path / "out", "--output", tmp_path / "m.json")
    weights = (copy / "model.safetensors").read_bytes()
    (copy / "model.safetensors").write_bytes((other_model / "model.safetensors").read_bytes())
    assert "the weights are not those that were fetched" in excise(*command, fails=True)
    (copy / "model.safetensors").write_bytes(weights)
    excise(*command)
    with open(copy / "tokenizer.json", "a") as file:
        file.write("\n")
    assert "tokenizer.json changed since the model was fetched" in excise(*command, fails=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"intermediate_size": 32},
            "2 layers x 32 neurons, but the weights hold (16, 24) for layers.0.mlp.down_proj.weight",
        ),
        ({"num_hidden_layers": 3}, "the weights hold nothing for layers.2.mlp.down_proj.weight"),
        ({"num_hidden_layers": 1}, "config.json promises 1 layers, but the weights hold 2"),
        ({"vocab_size": 100}, "promises (100, 16) for model.embed_tokens.weight, but the weights hold (320, 16)"),
        ({"num_attention_heads": 3}, "config.json: "),
        ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, "its weights are quantised"),
        ({"model_type": "mamba"}, "unknown model type 'mamba'"),
    ],
)
def test_inspect_refuses_a_model_that_cannot_be_pruned(copy, tmp_path, excise, change, message):
    config = read_json(copy / "config.json")
    (copy / "config.json").write_text(json.dumps(config | change))
    assert message in excise("inspect", "--model", copy, "--output", tmp_path / "m.json", fails=True)
    with pytest.raises(ExciseError, match=re.escape(message)):
        load_model(copy)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("prefix", [True, False])
def test_what_old_checkpoints_hold_besides_is_passed_over(tmp_path, family, prefix):
    """Buffers, a tied output embedding; names without the prefix of the base model, as GPT-2's on the hub."""
    from safetensors.torch import load_file, save_file

    model = tiny(family, dtype=torch.float32)
    model.save_pretrained(tmp_path / family)
    make_tokenizer(tmp_path / family)
    tensors = load_file(tmp_path / family / "model.safetensors")
    stem = next(name for name in tensors if ".0." in name).partition(".0.")[0]
    for name in ("self_attn.rotary_emb.inv_freq", "attention.masked_bias", "attention.bias", "attn.bias"):
        tensors[f"{stem}.0.{name}"] = torch.ones(1, 1, 9, 9)
    tensors[f"{model.base_model_prefix}.embeddings.position_ids"] = torch.arange(9)[None]
    tensors.setdefault("lm_head.weight", model.get_output_embeddings().weight.clone())
    if not prefix:
        tensors = {name.removeprefix(f"{model.base_model_prefix}."): tensor for name, tensor in tensors.items()}
    save_file(tensors, tmp_path / family / "model.safetensors", metadata={"format": "pt"})
    assert facts(tmp_path / family)["layers"] == 3
    ids = torch.arange(3, 12)[None]
    assert torch.equal(load_model(tmp_path / family, device="cpu")(ids).logits, model(ids).logits)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: path.unlink(), "tokenizer"),
        (lambda path: path.write_text("{}"), "its tokenizer cannot be read"),
        (lambda path: path.write_text("{"), "its tokenizer cannot be read"),
    ],
)
@pytest.mark.parametrize("family", ["llama", "qwen2", "gemma", "opt", "gpt2", "gpt_neox"])
def test_a_model_without_its_tokenizer_is_refused(tmp_path, excise, family, spoil, message):
    tiny(family, dtype=torch.float32).save_pretrained(tmp_path / family)
    make_tokenizer(tmp_path / family)
    spoil(tmp_path / family / "tokenizer.json")
    (tmp_path / family / "tokenizer_config.json").unlink()
    (tmp_path / "p.jsonl").write_text('{"id": "a", "text": "the cat"}\n')
    assert message in excise("inspect", "--model", tmp_path / family, "--output", tmp_path / "m.json", fails=True)
    command = ("generate", "--model", tmp_path / family, "--prompts", tmp_path / "p.jsonl")
    assert message in excise(*command, "--output", tmp_path / "g.jsonl", fails=True)


@pytest.mark.parametrize("left", [5, -100])
def test_weights_that_are_cut_short_are_named(copy, tmp_path, excise, left):
    (copy / "model.safetensors").write_bytes((copy / "model.safetensors").read_bytes()[:left])
    said = excise("fetch-model", "--source", copy, "--output", tmp_path / "out", fails=True)
    assert "model.safetensors: not a readable safetensors file" in said
    assert not (tmp_path / "out").exists()
    with pytest.raises(ExciseError, match="fetch or copy it again"):
        load_model(copy)


@pytest.mark.parametrize("family", ["opt", "gpt2"])
def test_inspect_knows_other_families(family, tmp_path, excise):
    from transformers import GPT2Config, GPT2LMHeadModel, OPTConfig, OPTForCausalLM

    if family == "opt":
        model = OPTForCausalLM(
            OPTConfig(
                vocab_size=50,
                hidden_size=8,
                ffn_dim=24,
                num_hidden_layers=3,
                num_attention_heads=2,
                word_embed_proj_dim=8,
            )
        )
    else:
        model = GPT2LMHeadModel(GPT2Config(vocab_size=50, n_embd=8, n_layer=3, n_head=2))
    model.save_pretrained(tmp_path / family)
    make_tokenizer(tmp_path / family)
    excise("inspect", "--model", tmp_path / family, "--output", tmp_path / "m.json")
    facts = read_json(tmp_path / "m.json")
    assert (facts["architecture"], facts["layers"]) == (family, 3)
    assert facts["neurons_per_layer"] == {"opt": 24, "gpt2": 32}[family]
    assert facts["parameters"] == sum(parameter.numel() for parameter in model.parameters())
    assert facts["tied_embeddings"] is True


def test_incomplete_weights_are_not_filled_with_random_numbers(copy):
    from safetensors.numpy import load_file, save_file

    tensors = load_file(copy / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ExciseError, match=r"lack 1 tensors of the model \(model\.layers\.1\.mlp\.up_proj\.weight\)"):
        load_model(copy)


def test_a_folder_that_cannot_be_written_is_named(copy, tmp_path, excise):
    (tmp_path / "file").touch()
    said = excise("fetch-model", "--source", copy, "--output", tmp_path / "file" / "out", fails=True)
    assert "cannot be written" in said


LONGROPE = {"rope_type": "longrope", "long_factor": [4.0, 4.0], "short_factor": [1.0, 1.0], "rope_theta": 10000.0}


def test_a_longrope_model_is_refused_beyond_the_positions_of_its_first_training(tmp_path, excise):
    """Beyond them it takes other frequencies for all of a batch: a short prompt would get another answer."""
    from transformers import LlamaConfig, Phi3Config, Phi3ForCausalLM

    folder = tmp_path / "phi"
    config = Phi3Config(
        vocab_size=make_tokenizer(folder), hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=64, original_max_position_embeddings=16, pad_token_id=1,
        bos_token_id=0, eos_token_id=1, rope_parameters={**LONGROPE, "original_max_position_embeddings": 16},
    )  # fmt: skip
    torch.manual_seed(0)
    Phi3ForCausalLM(config).save_pretrained(str(folder))
    assert max_positions(config) == 16
    assert facts(folder)["max_positions"] == 16
    (tmp_path / "p.jsonl").write_text('{"id": "a", "text": "the cat sat on a mat"}\n{"id": "b", "text": "rain"}\n')
    run = ["generate", "--model", folder, "--prompts", tmp_path / "p.jsonl", "--num-generations", 1]
    excise(*run, "--max-new-tokens", 2, "--output", tmp_path / "o.jsonl")
    said = excise(*run, "--max-new-tokens", 12, "--output", tmp_path / "o.jsonl", fails=True)
    assert "more than the model's 16" in said
    assert max_positions(LlamaConfig(max_position_embeddings=64)) == 64
