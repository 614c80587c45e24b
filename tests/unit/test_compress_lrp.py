"""LRP as a compression score: relevance of this model and of all its layers, or nothing."""

import torch
from safetensors.torch import load_file

from excise.artefacts import write_jsonl
from tests.unit.test_compress_driver import tensors


def test_weights_of_least_relevance_go(tiny_model, tmp_path, excise):
    rows = [{"id": str(n), "input_ids": [3, 40 + n, 50, 60], "target_start": 2} for n in range(3)]
    write_jsonl(tmp_path / "r.jsonl", {}, rows)
    relevance, out = tmp_path / "relevance", ["--threads", 1, "--output", tmp_path / "out"]
    measure = ["--form", "token", "--reference", tmp_path / "r.jsonl", "--output", relevance]
    excise("weight-relevance", "--model", tiny_model, *measure)
    excise("compress", tiny_model, "--method", "lrp", "--relevance", relevance, *out)
    after = tensors(tmp_path / "out")
    for layer in range(2):
        for name, score in load_file(relevance / f"layer-{layer:03}.safetensors").items():
            naive = torch.zeros_like(score, dtype=torch.bool)
            for row in range(len(score)):
                naive[row, score[row].abs().argsort(stable=True)[: score.shape[1] // 2]] = True
            assert torch.equal(after[f"model.layers.{layer}.{name}.weight"] == 0, naive)
    for broken, message in (
        (["--method", "lrp"], "lrp needs the folder that excise weight-relevance wrote"),
        (["--method", "magnitude", "--relevance", relevance], "other methods none"),
    ):
        assert message in excise("compress", tiny_model, *broken, *out, fails=True)
    given = ["--method", "lrp", "--relevance", relevance]
    assert "measured on another model" in excise(
        "compress", tmp_path / "out", *given, "--output", tmp_path / "x", fails=True
    )
    (relevance / "layer-001.safetensors").unlink()
    assert "layer-001.safetensors: no such file" in excise("compress", tiny_model, *given, *out, fails=True)
