"""Which files are the model, and which weights are not the model that config.json describes."""

import json
import logging
import re
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from excise.artefacts import read_json
from excise.errors import ExciseError
from excise.models import files
from excise.models.loading import facts, fingerprint, load_model
from tests.conftest import make_model
from tests.unit.test_models_gguf import make_gguf


def split(source: Path, target: Path, name: str = "model-{}-of-2.safetensors") -> Path:
    """A copy of a model in two files and an index."""
    shutil.copytree(source, target)
    tensors = load_file(target / "model.safetensors")
    (target / "model.safetensors").unlink()
    names = sorted(tensors)
    weight_map = {}
    for number, part in enumerate((names[::2], names[1::2]), 1):
        save_file({key: tensors[key] for key in part}, target / name.format(number), metadata={"format": "pt"})
        weight_map |= dict.fromkeys(part, name.format(number))
    (target / files.INDEX).write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": weight_map}))
    return target


@pytest.fixture
def copy(tiny_model, tmp_path):
    return Path(shutil.copytree(tiny_model, tmp_path / "model"))


@pytest.mark.parametrize("name", ["model-0000{}-of-00002.safetensors", "model.safetensors-0000{}-of-2.safetensors"])
def test_the_index_says_which_files_are_the_weights(tiny_model, tmp_path, excise, name):
    folder = split(tiny_model, tmp_path / "parts", name)
    save_file({"other": torch.ones(1)}, folder / "consolidated.safetensors")  # no part of the model
    assert [path.name for path in files.weight_files(folder)] == [name.format(1), name.format(2)]
    excise("fetch-model", "--source", folder, "--output", tmp_path / "out")
    linked = {path.name for path in (tmp_path / "out").iterdir()}
    assert linked == {path.name for path in files.model_files(folder)} | {"excise.json"}
    assert {files.INDEX, name.format(1), "tokenizer.json"} < linked
    assert "consolidated.safetensors" not in linked
    assert fingerprint(tmp_path / "out") == fingerprint(folder) == fingerprint(tiny_model)
    assert facts(folder)["fingerprint"] == fingerprint(tiny_model)
    ids = torch.arange(3, 12)[None]
    assert torch.equal(load_model(folder, device="cpu")(ids).logits, load_model(tiny_model, device="cpu")(ids).logits)


def test_other_files_beside_the_single_one_are_no_part_of_the_model(copy, tiny_model):
    save_file({"other": torch.ones(1)}, copy / "adapter_model.safetensors")
    assert fingerprint(copy) == fingerprint(tiny_model)


@pytest.mark.parametrize(
    ("weight_map", "message"),
    [
        ({"a": "../elsewhere.safetensors"}, "names ../elsewhere.safetensors; it must name *.safetensors beside it"),
        ({"a": "pytorch_model.bin"}, "names pytorch_model.bin"),
        ({}, "names no file"),
        ([], "names no file"),
        ({"a": "b.safetensors"}, "it has model.safetensors and an index of other files (b.safetensors, ...)"),
    ],
)
def test_an_odd_index_is_refused(copy, weight_map, message):
    (copy / files.INDEX).write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(ExciseError, match=re.escape(message)):
        fingerprint(copy)


def test_a_tensor_in_two_files_is_refused(tiny_model, tmp_path):
    folder = split(tiny_model, tmp_path / "parts")
    parts = [load_file(path) for path in files.weight_files(folder)]
    name = next(iter(parts[0]))
    save_file(parts[1] | {name: parts[0][name]}, files.weight_files(folder)[1], metadata={"format": "pt"})
    with pytest.raises(ExciseError, match=f"both hold {name}"):
        facts(folder)


def change(folder: Path, tensors: dict[str, torch.Tensor], *, drop: str = "") -> None:
    old = {name: tensor for name, tensor in load_file(folder / "model.safetensors").items() if name != drop}
    save_file(old | tensors, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize("read", [load_model, facts])
def test_weights_that_the_model_has_no_place_for_are_refused(copy, read):
    """A bias without its switch in config.json would be dropped without a word."""
    change(copy, {"model.layers.1.mlp.down_proj.bias": torch.ones(16)})
    with pytest.raises(ExciseError, match=r"does not have \(model|does not have \(layers\.1\.mlp\.down_proj\.bias\)"):
        read(copy)


@pytest.mark.parametrize("read", [load_model, facts])
def test_weights_that_are_missing_are_refused_before_they_are_loaded(copy, read):
    change(copy, {}, drop="model.norm.weight")
    with pytest.raises(ExciseError, match=r"lack 1 tensors of the model \(model\.norm\.weight\)"):
        read(copy)


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.int8])
def test_quantised_weights_that_config_does_not_speak_of_are_refused(copy, dtype):
    name = "model.layers.0.mlp.up_proj.weight"
    change(copy, {name: load_file(copy / "model.safetensors")[name].to(dtype)})
    with pytest.raises(ExciseError, match=f"{name} is stored in .*, so the weights are quantised"):
        load_model(copy)


@pytest.mark.parametrize("diverged", [False, True])
def test_a_diverged_output_embedding_is_not_tied(tmp_path, caplog, diverged):
    folder = make_model(tmp_path / "model", tie_word_embeddings=True)
    embedding = load_file(folder / "model.safetensors")["model.embed_tokens.weight"]
    change(folder, {"lm_head.weight": embedding * (2 if diverged else 1)})
    with caplog.at_level(logging.WARNING, "excise"):
        assert facts(folder)["tied_embeddings"] is not diverged
    assert ("the weights hold two that differ" in caplog.text) is diverged
    head = load_model(folder, device="cpu").lm_head.weight
    assert torch.equal(head, embedding * (2 if diverged else 1))


@pytest.mark.parametrize(
    ("rope", "message"),
    [
        ({"type": "su", "long_factor": [1.0, 1.0], "short_factor": [1.0, 1.0]}, "the rope type 'su' is 'longrope'"),
        ({"rope_type": "llama3", "factor": 8.0}, "Missing required keys"),
        ({"type": "linear", "factor": "2.0"}, '"factor": "2.0"'),
        ({"type": "linear"}, "Missing required keys"),
        ({"rope_type": "spiral"}, "KeyError: 'spiral'"),
    ],
)
def test_odd_rotary_embeddings_are_refused_before_anything_is_loaded(copy, tmp_path, excise, rope, message):
    config = read_json(copy / "config.json")
    del config["rope_parameters"]
    (copy / "config.json").write_text(json.dumps(config | {"rope_scaling": rope}))
    (copy / "model.safetensors").write_bytes(b"never read")
    said = excise("fetch-model", "--source", copy, "--output", tmp_path / "out", fails=True)
    assert message in said
    assert "config.json" in said


def test_a_multimodal_model_is_not_taken_for_another_family(tmp_path, excise):
    (tmp_path / "m").mkdir()
    config = {"model_type": "gemma3", "text_config": {"model_type": "gemma3_text"}, "vision_config": {}}
    (tmp_path / "m" / "config.json").write_text(json.dumps(config))
    (tmp_path / "m" / "model.safetensors").touch()
    said = excise("fetch-model", "--source", tmp_path / "m", "--output", tmp_path / "out", fails=True)
    assert "unknown model type 'gemma3'. It is a model of text and other things; its text part (gemma3_text)" in said
    assert "Did you mean" not in said


def rewrite(source, target, *, drop="", tensors=(), parts=None):
    """Copy a GGUF file with tensors dropped or added, or as one of several parts."""
    import gguf

    reader, writer = gguf.GGUFReader(source), gguf.GGUFWriter(target, "llama")
    for field in reader.fields.values():
        if field.name != "general.architecture" and not field.name.startswith("GGUF."):
            kind = field.types[0]
            inner = field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
            writer.add_key_value(field.name, field.contents(), kind, sub_type=inner)
    if parts is not None:
        writer.add_key_value("split.count", parts, gguf.GGUFValueType.UINT16)
    for tensor in reader.tensors:
        if not drop or drop not in tensor.name:
            writer.add_tensor(tensor.name, tensor.data.copy())
    for name, size in tensors:
        writer.add_tensor(name, torch.ones(size).numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"drop": "blk.1", "parts": 2}, "one of 2 parts of a model. Make one file of them"),
        ({"drop": "blk.1"}, "the weights lack 9 tensors of the model"),
        ({"tensors": [("rope_freqs.weight", 4)]}, "of which transformers takes"),
        ({"tensors": [("blk.0.ffn_down.bias", 32)]}, "Give it as a Hugging Face folder instead"),
        ({"parts": 1}, None),
    ],
)
def test_a_gguf_file_that_does_not_become_the_whole_model_is_refused(tmp_path, excise, changes, message):
    folder = make_model(tmp_path / "model", hidden_size=32, intermediate_size=64)
    make_gguf(folder, tmp_path / "whole.gguf")
    rewrite(tmp_path / "whole.gguf", tmp_path / "it.gguf", **changes)
    command = ("fetch-model", "--source", tmp_path / "it.gguf", "--output", tmp_path / "out")
    if message is None:
        excise(*command)
        assert fingerprint(tmp_path / "out") == fingerprint(folder)
    else:
        assert message in excise(*command, fails=True)
        assert not (tmp_path / "out").exists()


def test_a_gguf_file_that_is_cut_short_is_named(tmp_path, excise):
    folder = make_model(tmp_path / "model", hidden_size=32, intermediate_size=64)
    make_gguf(folder, tmp_path / "whole.gguf")
    for length in (6, 40, 3000, (tmp_path / "whole.gguf").stat().st_size // 2):
        (tmp_path / "it.gguf").write_bytes((tmp_path / "whole.gguf").read_bytes()[:length])
        said = excise("fetch-model", "--source", tmp_path / "it.gguf", "--output", tmp_path / "out", fails=True)
        assert "it.gguf: not a readable GGUF file" in said
