"""The order of neurons: never worse, best per slot, and the same model."""

import itertools

import pytest
import torch

from excise.artefacts import read_json
from excise.compress import driver
from excise.compress.edit import Prune
from excise.compress.patterns import KeepNofM, parse
from excise.compress.permutation import assignment_values, order, retained
from excise.compress.recipe import Recipe
from excise.errors import ExciseError
from excise.models.families import architecture
from excise.models.loading import load_model
from excise.models.parts import linear_maps
from tests.unit.test_compress_driver import CAUSAL, WINDOWS
from tests.unit.test_evaluation_families import make


@pytest.mark.parametrize("pattern", [KeepNofM(1, 4), KeepNofM(2, 4), KeepNofM(3, 4), KeepNofM(4, 8)])
def test_retained_score_never_falls(pattern):
    generator = torch.Generator().manual_seed(0)
    for _ in range(5):
        score = torch.rand(6, 24, generator=generator) * torch.rand(24, generator=generator)
        found = order(score, pattern)
        assert sorted(found.tolist()) == list(range(24))
        assert retained(score[:, found], pattern) >= retained(score, pattern)


def test_it_gains_where_strong_columns_are_neighbours():
    score = torch.cat([torch.full((3, 4), 5.0), torch.full((3, 4), 1.0)], dim=1)
    assert retained(score, KeepNofM(2, 4)) == 3 * (2 * 5 + 2 * 1)
    assert retained(score[:, order(score, KeepNofM(2, 4))], KeepNofM(2, 4)) == 3 * 4 * 5


@pytest.mark.parametrize("pattern", [KeepNofM(1, 4), KeepNofM(2, 4), KeepNofM(3, 4)])
def test_values_of_an_assignment_equal_the_sorted_ones(pattern):
    torch.manual_seed(0)
    score, groups = torch.rand(5, 12), torch.randperm(12).reshape(3, 4)
    for slot in range(4):
        values = assignment_values(score, groups, slot, pattern)
        for g, h in itertools.product(range(3), repeat=2):
            columns = groups[g].clone()
            columns[slot] = groups[h, slot]
            kept = sum(sum(sorted(row, reverse=True)[: pattern.kept]) for row in score[:, columns].tolist())
            assert float(values[g, h]) == pytest.approx(kept, rel=1e-5)


def prune(folder, output, recipe, permute):
    run = driver.Run(Prune(recipe, permute=permute), WINDOWS)
    driver.compress(folder, output, run, meta={"stage": "test"}, source={"id": "tiny"})
    return load_model(output)


@pytest.mark.parametrize("family", CAUSAL)
def test_the_permuted_model_is_the_same_model(family, tmp_path):
    """Put the neurons back: unpruned weights are the old ones, and the stored matrix is N:M as it is."""
    folder = tmp_path / "model"
    make(family).float().save_pretrained(folder)
    model, old = prune(folder, tmp_path / "out", Recipe("wanda", KeepNofM(2, 4)), True), load_model(folder)
    table = architecture(model.config)
    rows = [row for row in read_json(tmp_path / "out" / driver.MANIFEST)["rows"] if row["map"] == table.output]
    assert all(row["retained"] >= row["retained_before"] for row in rows)
    for row in rows:
        place = torch.tensor(row["order"])
        maps, before = linear_maps(model, row["layer"]), linear_maps(old, row["layer"])

        def weight(module):
            return module.weight.T if table.transposed else module.weight

        down = weight(maps[table.output])
        assert ((down.reshape(-1, 4) == 0).sum(1) == 2).all()
        same = (down == weight(before[table.output])[:, place]) | (down == 0)
        assert same.all()
        for path in table.inputs:
            whole = torch.cat([place + block * 24 for block in range(table.fused)])
            moved = weight(before[path])[whole]
            assert ((weight(maps[path]) == moved) | (weight(maps[path]) == 0)).all()
            if maps[path].bias is not None:
                assert torch.equal(maps[path].bias, before[path].bias[whole])


@pytest.mark.parametrize("method", ["ria", "alps"])
def test_every_kind_of_method_can_be_permuted(method, tiny_model, tmp_path):
    plain = prune(tiny_model, tmp_path / "plain", Recipe(method, KeepNofM(2, 4)), False)
    permuted = prune(tiny_model, tmp_path / "permuted", Recipe(method, KeepNofM(2, 4)), True)
    for name, weight in permuted.state_dict().items():
        if "attn" in name and ".0." in name:
            assert torch.equal(weight, plain.state_dict()[name])


def test_refusals():
    for change, message in (
        ({"recipe": Recipe("wanda", parse("0.5", "row"))}, "only N:M gains"),
        ({"recipe": Recipe("wanda", KeepNofM(2, 4)), "scope": "attention"}, "--scope attention"),
        ({"recipe": Recipe("random", KeepNofM(2, 4))}, "random"),
    ):
        with pytest.raises(ExciseError, match=message):
            Prune(**change, permute=True)
