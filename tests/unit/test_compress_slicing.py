"""Cut neurons: the smaller model is the model with those neurons at zero, or its best repair, in every family."""

import json

import pytest
import torch

from excise.artefacts import read_json
from excise.compress import driver
from excise.compress.inputs import damped
from excise.compress.slicing import Slice, importance, kept, repaired
from excise.errors import ExciseError
from excise.models.families import ARCHITECTURES, architecture, neuron_shape
from excise.models.loading import load_model
from excise.models.parts import linear_maps
from tests.unit.test_compress_driver import CAUSAL, WINDOWS, tensors
from tests.unit.test_evaluation_families import make


def cut(folder, output, change, **settings):
    driver.compress(
        folder, output, driver.Run(change, WINDOWS, **settings), meta={"stage": "test"}, source={"id": "tiny"}
    )
    return load_model(output)


@pytest.mark.parametrize("family", CAUSAL)
def test_a_plain_slice_is_the_model_with_these_neurons_at_zero(family, tmp_path):
    folder = tmp_path / "model"
    make(family).float().save_pretrained(folder)
    sliced = cut(folder, tmp_path / "out", Slice(16, "none"))
    assert neuron_shape(sliced.config)[1] == 16
    rows = read_json(tmp_path / "out" / driver.MANIFEST)["rows"]
    whole = load_model(folder)
    for row in rows:
        module = linear_maps(whole, row["layer"])[architecture(whole.config).output]
        gone = [neuron for neuron in range(24) if neuron not in row["kept"]]
        weight = module.weight.T if ARCHITECTURES[family].transposed else module.weight
        weight[:, gone] = 0
    with torch.inference_mode():
        torch.testing.assert_close(
            sliced(input_ids=WINDOWS).logits, whole(input_ids=WINDOWS).logits, rtol=1e-4, atol=1e-4
        )


def test_importance_and_choice():
    down, norms = torch.tensor([[3.0, 0, 1, 1], [4, 0, 0, 0]]), torch.tensor([1.0, 9, 5, 5])
    assert importance(down, norms).tolist() == [5, 0, 5, 5]
    assert kept(importance(down, norms), 2).tolist() == [2, 3]


def test_repair_is_least_squares():
    torch.manual_seed(0)
    down, rows = torch.randn(3, 8, dtype=torch.float64), torch.randn(50, 8, dtype=torch.float64)
    rows[:, 5] = rows[:, 0] - 2 * rows[:, 1]  # what the others can say exactly
    keep = torch.tensor([0, 1, 2, 4, 6, 7])
    gram = rows.T @ rows
    full = damped(gram, 0.01)
    expected = torch.stack([torch.linalg.solve(full[keep][:, keep], (full @ row)[keep]) for row in down])
    torch.testing.assert_close(repaired(down, gram, keep), expected)
    only = torch.zeros_like(down)
    only[:, 5] = down[:, 5]
    only[:, keep] = down[:, keep]
    error = (rows @ only.T - rows[:, keep] @ repaired(only, gram, keep).T).norm()
    assert error < 0.05 * (rows[:, 5:6] @ down[:, 5:6].T).norm()


def test_only_the_width_of_the_configuration_changes(tiny_model, tmp_path):
    cut(tiny_model, tmp_path / "out", Slice(16))
    before, after = (json.loads((folder / "config.json").read_text()) for folder in (tiny_model, tmp_path / "out"))
    assert after == before | {"intermediate_size": 16}
    old, new = tensors(tiny_model), tensors(tmp_path / "out")
    for name in old:
        if "mlp" not in name:
            assert torch.equal(old[name], new[name])


def test_the_stage(tiny_model, tmp_path, words, excise):
    text = tmp_path / "text.txt"
    text.write_text(" ".join(words * 200))
    options = ["--calibration", text, "--windows", 4, "--seqlen", 32, "--threads", 1, "--output", tmp_path / "out"]
    assert "16 of 24 neurons per layer kept" in excise("slice", tiny_model, "--keep", 0.7, "--multiple", 8, *options)
    assert neuron_shape(load_model(tmp_path / "out").config) == (2, 16)
    for broken, message in (
        (["--keep", 0.75], "0 neurons per layer: must be at least 1"),
        (["--keep", 1.5], "must be above 0 and below 1"),
        (["--multiple", 8, "--repair", "svd"], "'svd' is not one of least-squares, none"),
    ):
        assert message in excise("slice", tiny_model, *broken, *options, fails=True)


def test_an_activation_that_is_not_finite_is_refused(tiny_model, tmp_path):
    stored = tensors(tiny_model)
    stored["model.layers.1.mlp.down_proj.weight"][0, 0] = torch.inf
    from safetensors.torch import save_file

    save_file(stored, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_bytes((tiny_model / "config.json").read_bytes())
    with pytest.raises(ExciseError, match=r"layer 1, mlp\.down_proj"):
        cut(tmp_path, tmp_path / "out", Slice(16))
