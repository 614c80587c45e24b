"""Some modules of a model read from disk: the same tensors as in the whole model, and no others."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from excise.logit_lens import looked_at, promoted
from excise.models.loading import load_model
from excise.models.partial import load_modules
from excise.stages import costs
from tests.unit.test_logit_lens import tiny

NEURONS = [(1, 3), (1, 23), (0, 7)]
WIDTH = {"opt": {"ffn_dim": 24, "word_embed_proj_dim": 16}, "gpt2": {"n_inner": 24}}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", ["llama", "gemma2", "opt", "gpt2", "gpt_neox"])
def test_the_lens_sees_the_same_through_a_part_of_the_model(kind, dtype, tmp_path):
    more = {"head_dim": 4, "num_key_value_heads": 2} if kind == "gemma2" else {}
    tiny(kind, **WIDTH.get(kind, {"intermediate_size": 24}), **more).save_pretrained(tmp_path)
    whole = load_model(tmp_path, dtype=dtype, device="cpu")
    part = load_modules(tmp_path, lambda model: looked_at(model, NEURONS), dtype=dtype)
    assert promoted(part, NEURONS, 5) == promoted(whole, NEURONS, 5)
    held = {module for module in part.modules() if any(not p.is_meta for p in module.parameters(recurse=False))}
    assert held == set(looked_at(part, NEURONS))


def test_a_head_that_is_tied_by_name_alone_is_read_as_it_is_stored(tmp_path):
    tiny("llama", intermediate_size=24, tie_word_embeddings=True).save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    tensors = load_file(path)
    save_file(
        tensors | {"lm_head.weight": torch.randn_like(tensors["model.embed_tokens.weight"])}, path, {"format": "pt"}
    )
    whole = load_model(tmp_path, device="cpu")
    part = load_modules(tmp_path, lambda model: looked_at(model, NEURONS))
    assert torch.equal(part.get_output_embeddings().weight, whole.get_output_embeddings().weight)
    assert promoted(part, NEURONS, 5) == promoted(whole, NEURONS, 5)


def test_the_lens_of_a_large_model_asks_for_what_it_reads():
    assert costs.lens_mb(4096, 128256, 32, 14336) == pytest.approx(1.2 * 8 * 4096 * (128256 + 20 * 14336) / 1e6)
    assert costs.lens_mb(16, 40, 2, 24) == pytest.approx(1.2 * 8 * 16 * (40 + 2 * 24) / 1e6)
