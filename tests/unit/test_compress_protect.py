"""Protected units: their weights stay, and as many are pruned in all."""

import json

import pytest

from excise.artefacts import read_json
from excise.compress import driver
from excise.compress.edit import Prune
from excise.compress.patterns import KeepNofM, parse
from excise.compress.protect import protected
from excise.compress.recipe import Recipe
from excise.errors import ExciseError
from excise.models.families import architecture, attention_rows
from excise.models.loading import load_config
from tests.unit.test_compress_driver import WINDOWS, tensors

SHAPES = {
    "self_attn.q_proj": (16, 16),
    "self_attn.k_proj": (8, 16),
    "self_attn.v_proj": (8, 16),
    "self_attn.o_proj": (16, 16),
    "mlp.gate_proj": (24, 16),
    "mlp.up_proj": (24, 16),
    "mlp.down_proj": (16, 24),
}


def unit_list(unit, *rows):
    return {"unit": unit, "units_per_layer": 24 if unit == "neuron" else 4, "rows": list(rows)}


def test_which_weights_a_unit_has(tiny_model):
    config = load_config(tiny_model)
    found = protected(unit_list("neuron", {"layer": 1, "neuron": 5}), config, SHAPES, 1)
    assert {path: int(mask.sum()) for path, mask in found.items()} == {
        "mlp.gate_proj": 16,
        "mlp.up_proj": 16,
        "mlp.down_proj": 16,
    }
    assert found["mlp.gate_proj"][5].all()
    assert found["mlp.down_proj"][:, 5].all()
    assert protected(unit_list("neuron", {"layer": 1, "neuron": 5}), config, SHAPES, 0) == {}
    found = protected(unit_list("head", {"layer": 0, "head": 3}), config, SHAPES, 0)
    assert found["self_attn.q_proj"][12:].all()
    assert found["self_attn.q_proj"].sum() == 64
    assert found["self_attn.k_proj"][4:].all()  # four heads read two keys
    assert found["self_attn.v_proj"].sum() == 64
    assert found["self_attn.o_proj"][:, 12:].all()
    assert attention_rows(config)["key"].heads[1] == range(4, 8)
    for unit, parts in (("mlp", 3), ("attention", 4), ("layer", 7)):
        found = protected(unit_list(unit, {"layer": 0}), config, SHAPES, 0)
        assert len(found) == parts
        assert all(mask.all() for mask in found.values())
    assert architecture(config).fused == 1


@pytest.mark.parametrize("method", ["wanda", "magnitude", "sparsegpt", "admm", "alps"])
@pytest.mark.parametrize("group", ["row", "matrix"])
def test_they_stay_and_the_count_is_exact(method, group, tiny_model, tmp_path):
    units = unit_list("neuron", {"layer": 0, "neuron": 5}, {"layer": 1, "neuron": 0}, {"layer": 1, "neuron": 7})
    change = Prune(Recipe(method, parse("0.5", group)), protect=units)
    driver.compress(
        tiny_model, tmp_path / "out", driver.Run(change, WINDOWS), meta={"stage": "test"}, source={"id": "tiny"}
    )
    after = tensors(tmp_path / "out")
    for row in units["rows"]:
        mlp = f"model.layers.{row['layer']}.mlp"
        assert (after[f"{mlp}.gate_proj.weight"][row["neuron"]] != 0).all()
        assert (after[f"{mlp}.down_proj.weight"][:, row["neuron"]] != 0).all()
    total = read_json(tmp_path / "out" / driver.MANIFEST)["total"]
    assert total["zeros_made"] * 2 == total["weights"]


def test_refusals(tiny_model, tmp_path, excise):
    def run(pattern, *rows, unit="neuron"):
        change = Prune(Recipe("wanda", pattern), protect=unit_list(unit, *rows))
        plan = driver.Run(change, WINDOWS)
        driver.compress(tiny_model, tmp_path / "out", plan, meta={"stage": "test"}, source={"id": "tiny"})

    with pytest.raises(ExciseError, match="more than 2 weights of a group of 4"):
        run(KeepNofM(2, 4), {"layer": 0, "neuron": 5})
    with pytest.raises(ExciseError, match="all except 0 are protected"):
        run(parse("0.5", "row"), {"layer": 0}, unit="mlp")
    with pytest.raises(ExciseError, match="choose one of the two"):
        Prune(Recipe("wanda", KeepNofM(2, 4)), permute=True, protect=unit_list("layer", {"layer": 0}))
    (tmp_path / "units.json").write_text(json.dumps({"meta": {}}))
    said = excise(
        "compress", tiny_model, "--method", "magnitude", "--protect", tmp_path / "units.json",
        "--output", tmp_path / "no", fails=True,
    )  # fmt: skip
    assert "not a unit list" in said
