"""Low rank: SVD-LLM's truncation without its factors, the plain one, counts, and what is refused."""

from fractions import Fraction

import pytest
import torch

from excise.artefacts import read_json
from excise.compress import driver
from excise.compress.inputs import damped
from excise.compress.low_rank import DAMPING, LowRank, factors, rank_of
from excise.config.compress import LowRank as Configured
from excise.errors import ExciseError
from excise.models.loading import load_model
from excise.models.parts import linear_maps
from tests.unit.test_compress_driver import WINDOWS, tensors
from tests.unit.test_evaluation_families import make

HALF = Fraction(1, 2)


def problem(outputs, inputs, tokens=40):
    torch.manual_seed(0)
    weight, rows = torch.randn(outputs, inputs).double(), torch.randn(tokens, inputs).double()
    return weight, rows.T @ rows


@pytest.mark.parametrize(("outputs", "inputs", "tokens"), [(6, 6, 40), (4, 9, 40), (9, 4, 40), (6, 8, 3)])
def test_whitened_is_the_truncated_svd_behind_a_cholesky_factor(outputs, inputs, tokens):
    weight, gram = problem(outputs, inputs, tokens)
    full = damped(gram, DAMPING)
    lower = torch.linalg.cholesky(full)
    left, values, right = torch.linalg.svd(weight @ lower, full_matrices=False)
    naive = (left[:, :2] * values[:2]) @ right[:2] @ torch.linalg.inv(lower)
    first, second = factors(weight, gram, 2)
    assert (first.shape, second.shape) == ((outputs, 2), (2, inputs))
    torch.testing.assert_close(first @ second, naive, rtol=1e-8, atol=1e-8)
    change = weight - first @ second
    torch.testing.assert_close((change @ full * change).sum(), values[2:].square().sum(), rtol=1e-8, atol=1e-8)


def test_plain_is_the_truncated_svd_and_changes_outputs_more():
    weight, gram = problem(8, 8)
    gram = gram * torch.logspace(-2, 2, 8) * torch.logspace(-2, 2, 8)[:, None]
    left, values, right = torch.linalg.svd(weight)
    first, second = factors(weight, None, 3)
    torch.testing.assert_close(first @ second, (left[:, :3] * values[:3]) @ right[:3], rtol=1e-8, atol=1e-8)

    def lost(product):
        return (((weight - product) @ gram) * (weight - product)).sum()

    whitened, other = factors(weight, gram, 3)
    assert lost(whitened @ other) < lost(first @ second)


def test_ranks_save_what_they_say_or_are_refused():
    assert rank_of(HALF, 576, 576) == 144
    for outputs, inputs in ((576, 192), (7, 5), (30, 3)):
        rank = rank_of(Fraction(9, 10), outputs, inputs)
        assert rank <= 0.9 * outputs * inputs / (outputs + inputs) < rank + 1
    for share in (Fraction(1), Fraction(1, 100)):
        with pytest.raises(ExciseError, match=r"below 4\.0, where they have as many"):
            rank_of(share, 8, 8)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("whitened", [True, False])
def test_the_folder_loads_with_maps_of_that_rank(family, whitened, tmp_path):
    make(family).save_pretrained(tmp_path / "model")
    change = LowRank(HALF, whitened)
    run = driver.Run(change, WINDOWS if whitened else None)
    driver.compress(tmp_path / "model", tmp_path / "out", run, meta={"stage": "test"}, source={"id": "tiny"})
    found, whole = load_model(tmp_path / "out"), load_model(tmp_path / "model")
    manifest = read_json(tmp_path / "out" / driver.MANIFEST)
    assert {row["map"] for row in manifest["rows"]} == set(change.maps(whole, 0))
    for row in manifest["rows"]:
        weight = linear_maps(found, row["layer"])[row["map"]].weight
        assert torch.linalg.matrix_rank(weight, rtol=1e-5) == row["rank"]
        assert row["factors"] == row["rank"] * sum(weight.shape) <= row["weights"] / 2
    before, after = tensors(tmp_path / "model"), tensors(tmp_path / "out")
    assert {name for name in before if not torch.equal(before[name], after[name])} == {
        name for name in before if any(f"{row['layer']}.{row['map']}.weight" in name for row in manifest["rows"])
    }
    assert manifest["total"]["factors"] <= manifest["total"]["weights"] / 2


def test_the_stage(tiny_model, tmp_path, words, excise):
    text = tmp_path / "text.txt"
    text.write_text(" ".join(words * 200))
    options = ["--threads", 1, "--output", tmp_path / "out"]
    calibrated = ["--calibration", text, "--windows", 4, "--seqlen", 32, *options]
    said = excise("low-rank", tiny_model, "--keep", 0.8, *calibrated)
    assert "stored multiplied back, as large as before; factors would have" in said
    for broken, message in (
        (["--keep", 1], "save nothing"),
        (["--method", "svd"], "'svd' is not one of"),
        (["--scope", "heads"], "'heads' is not one of"),
    ):
        assert message in excise("low-rank", tiny_model, *broken, *calibrated, fails=True)
    pruned = tmp_path / "half"
    excise("compress", tiny_model, "--method", "magnitude", *options[:2], "--output", pruned)
    message = excise("low-rank", pruned, "--method", "plain", *options, fails=True)
    assert "layer 0, self_attn.q_proj: 50% of the weights are zero" in message


def test_whitened_calibrates_and_plain_does_not():
    entry = {"edit": "low-rank", "keep": [0.9, 0.75]}
    assert Configured(**entry, calibration={"windows": 2}).named() == {"0.9": "0.9", "0.75": "0.75"}
    assert Configured(**entry, method="plain").is_control
    for wrong in (entry, {**entry, "method": "plain", "calibration": {}}):
        with pytest.raises(ValueError, match="whitened measures"):
            Configured(**wrong)
