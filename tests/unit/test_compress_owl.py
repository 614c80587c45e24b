"""OWL: shares that differ by layer, against loops; the mean share stays."""

from fractions import Fraction

import pytest
import torch

from excise.artefacts import read_json
from excise.compress import driver
from excise.compress.edit import Prune
from excise.compress.owl import outliers, shares
from excise.compress.patterns import parse
from excise.compress.recipe import Recipe
from excise.config.compress import Compress
from excise.errors import ExciseError
from excise.models.loading import load_model
from excise.models.parts import linear_maps
from tests.unit.test_compress_driver import WINDOWS


def test_outliers_are_counted_over_all_maps_of_a_layer():
    torch.manual_seed(0)
    scores = [torch.randn(4, 6).double().exp() ** 2, 3 * torch.rand(3, 5).double()]
    values = [float(value) for score in scores for value in score.flatten()]
    mean = sum(values) / len(values)
    naive = sum(value > 5 * mean for value in values) / len(values)
    assert outliers(scores) == naive > 0


def test_shares_keep_the_mean_and_follow_the_outliers():
    found = shares([0.01, 0.03, 0.02, 0.05], Fraction(7, 10))
    assert float(sum(found)) / 4 == pytest.approx(0.7, abs=1e-15)
    kept = [0.16 * one for one in (0, 0.5, 0.25, 1)]  # OWL's own lines: scaled to 2 lambda, then centred
    naive = [1 - (one - sum(kept) / 4 + 0.3) for one in kept]
    assert [float(one) for one in found] == pytest.approx(naive, abs=1e-12)
    assert shares([0.2, 0.2], Fraction(1, 2)) == [Fraction(1, 2)] * 2
    with pytest.raises(ExciseError, match=r"layers would lose 0\.920 to 1\.080"):
        shares([0.1, 0.9], Fraction(1))


@pytest.mark.parametrize("method", ["magnitude", "alps"])
def test_each_layer_loses_its_share_measured_in_the_dense_model(method, tiny_model, tmp_path):
    change = Prune(Recipe(method, parse("0.5", "row")), shares="owl")
    driver.compress(
        tiny_model, tmp_path / "out", driver.Run(change, WINDOWS), meta={"stage": "test"}, source={"id": "tiny"}
    )
    model, ratios = load_model(tiny_model), []
    for layer in range(2):
        inputs, hooks = {}, []
        for name, part in linear_maps(model, layer).items():
            hooks.append(
                part.register_forward_pre_hook(
                    lambda _, given, inputs=inputs, name=name: inputs.update({name: given[0]})
                )
            )
        with torch.inference_mode():
            model(input_ids=WINDOWS)
        for hook in hooks:
            hook.remove()
        ratios.append(
            outliers(
                [
                    part.weight.abs() * inputs[name].reshape(-1, inputs[name].shape[-1]).norm(dim=0)
                    for name, part in linear_maps(model, layer).items()
                ]
            )
        )
    expected = shares(ratios, Fraction(1, 2))
    assert expected[0] != expected[1]
    found = load_model(tmp_path / "out")
    for row in read_json(tmp_path / "out" / driver.MANIFEST)["rows"]:
        weight = linear_maps(found, row["layer"])[row["map"]].weight
        assert row["share"] == pytest.approx(float(expected[row["layer"]]), abs=1e-12)
        assert ((weight == 0).sum(1) == int(expected[row["layer"]] * weight.shape[1])).all()


def test_what_does_not_go_with_it_is_refused():
    with pytest.raises(ExciseError, match="--shares owl: 2 of 4 kept in every layer"):
        Prune(Recipe("wanda", parse("2:4", "row")), shares="owl")
    with pytest.raises(ExciseError, match="unknown spread of shares 'olw'"):
        Prune(Recipe("wanda", parse("0.5", "row")), shares="olw")
    with pytest.raises(ValueError, match="reconstruct none, owl: inputs of maps are measured; give calibration"):
        Compress(edit="compress", method="magnitude", patterns=["0.5"], shares="owl")
