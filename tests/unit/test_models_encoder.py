"""Encoders: loaded, pooled and cut as their files say, and refused where they say something unknown."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from excise.errors import ExciseError
from excise.models.encoder import embed, load_encoder
from excise.models.families import ENCODERS, architecture
from excise.models.loading import load_model
from excise.models.structure import Layer, Structure, channels, cut, from_json, whole
from tests.unit.encoders import make_encoder, some_texts


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_encoder(tmp_path_factory.mktemp("encoder") / "model")


def change(folder: Path, name: str, **entries: Any) -> None:
    path = folder / name
    path.write_text(json.dumps((json.loads(path.read_text()) if path.exists() else {}) | entries))


@pytest.mark.parametrize("family", ENCODERS)
def test_the_table_leads_to_the_parts_of_every_encoder(tmp_path, family):
    encoder = load_encoder(make_encoder(tmp_path / "m", family=family))
    layer = encoder.model.get_submodule(architecture(encoder.model.config).layers)[0]
    row = architecture(encoder.model.config)
    assert layer.get_submodule(row.inputs[0]).weight.shape == (24, 16)
    assert layer.get_submodule(row.output).weight.shape == (16, 24)
    assert layer.get_submodule(row.attention.output).weight.shape == (16, 16)
    assert not row.causal
    assert torch.isfinite(embed(encoder, ["cats sleep"]).vectors).all()


@pytest.mark.parametrize("mode", ["mean", "cls", "max"])
def test_pooling_is_what_its_name_says(tmp_path, mode):
    encoder = load_encoder(make_encoder(tmp_path / "m", pooling=mode), dtype="float64")
    for text in ("cats", "dogs bark all day"):
        ids = torch.tensor([encoder.tokenizer(text)["input_ids"]])
        states = encoder.model(input_ids=ids).last_hidden_state[0]
        vector = {"mean": states.mean(0), "cls": states[0], "max": states.max(0).values}[mode]
        found = embed(encoder, [text, "people walk home over quiet streets"]).vectors[0]
        torch.testing.assert_close(found, vector / vector.norm(), rtol=0, atol=1e-12)


def test_texts_are_cut_and_counted_and_equal_texts_are_equal(folder):
    encoder = load_encoder(folder)
    long = " ".join(["cats"] * 30)
    exact = " ".join(["cats"] * 10)  # 12 tokens with the special ones: the maximal length
    found = embed(encoder, [long, "dogs", exact, "dogs", *some_texts(30)])
    assert found.shortened == 1
    assert torch.equal(found.vectors[1], found.vectors[3])
    assert torch.equal(found.vectors[0], found.vectors[2])


def test_prefixes_come_from_the_models_files(tmp_path, folder):
    other = make_encoder(tmp_path / "m")
    change(other, "config_sentence_transformers.json", prompts={"query": "cats ", "passage": "dogs "})
    one, two = load_encoder(folder), load_encoder(other)
    assert torch.equal(embed(two, ["sleep"], "query").vectors, embed(one, ["cats sleep"]).vectors)
    assert torch.equal(embed(two, ["sleep"], "document").vectors, embed(one, ["dogs sleep"]).vectors)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: (f / "modules.json").unlink(), "how token states become an embedding is unknown"),
        (lambda f: change(f, "1_Pooling/config.json", pooling_mode_lasttoken=True), r"unknown pooling 'mean \+ lasttoken'"),
        (lambda f: change(f, "1_Pooling/config.json", pooling_mode_mean_tokens=False), "unknown pooling 'none'"),
        (lambda f: change(f, "config_sentence_transformers.json", similarity_fn_name="manhattan"), "unknown similarity"),
        (lambda f: (f / "modules.json").write_text('[{"type": "x.Dense", "path": "3_Dense"}]'), "unknown module 'Dense'"),
        (lambda f: change(f, "config.json", intermediate_size=20), "should be"),
        (lambda f: change(f, "config.json", num_hidden_layers=2), "no place for"),
        (lambda f: change(f, "config.json", num_hidden_layers=4), "lack"),
    ],
)  # fmt: skip
def test_what_is_unknown_is_refused(tmp_path, spoil, message):
    spoil(make_encoder(tmp_path / "m"))
    with pytest.raises(ExciseError, match=message):
        load_encoder(tmp_path / "m")


def test_each_order_is_refused_where_the_other_is_needed(folder, tiny_model):
    with pytest.raises(ExciseError, match="bert is an encoder; this needs a causal language model"):
        load_model(folder)
    with pytest.raises(ExciseError, match="llama is a causal language model; this needs an encoder"):
        load_encoder(tiny_model)


SMALL = Structure(
    (Layer(0, (0, 2), (0, 5, 23)), Layer(1, (3,), tuple(range(24))), Layer(2, (0, 1, 2, 3), (7,))), heads=4, neurons=24
)


def masked(encoder: Any, structure: Structure) -> None:
    """Put zeros where a structure leaves a unit out: the slow and certain way."""
    for row, layer in zip(structure.layers, encoder.model.encoder.layer, strict=True):
        kept = {"attention.output.dense": channels(row.heads, 4), "output.dense": list(row.neurons)}
        for path, places in kept.items():
            weight = layer.get_submodule(path).weight.data
            gone = [place for place in range(weight.shape[1]) if place not in places]
            weight[:, gone] = 0


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-12), ("float32", 1e-5)])
def test_a_cut_model_is_the_masked_model(folder, dtype, tolerance):
    cut_one, masked_one = load_encoder(folder, dtype=dtype), load_encoder(folder, dtype=dtype)
    cut(cut_one.model, SMALL)
    masked(masked_one, SMALL)
    texts = some_texts(40)
    difference = (embed(cut_one, texts).vectors - embed(masked_one, texts).vectors).abs().max()
    assert difference < tolerance
    dense = embed(load_encoder(folder, dtype=dtype), texts).vectors
    assert (embed(cut_one, texts).vectors - dense).abs().max() > 0.01  # something was cut
    assert cut_one.model.encoder.layer[0].output.dense.weight.shape == (16, 3)


def test_layers_are_dropped(folder):
    encoder = load_encoder(folder, dtype="float64")
    rows = whole(encoder.model.config).layers
    cut(encoder.model, Structure((rows[0], rows[2]), 4, 24))
    other = load_encoder(folder, dtype="float64")
    del other.model.encoder.layer[1]
    other.model.config.num_hidden_layers = 2
    assert torch.equal(embed(encoder, ["cats sleep"]).vectors, embed(other, ["cats sleep"]).vectors)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layers": []}, "no layer is left"),
        ({"layers": [{"layer": 1, "heads": [], "neurons": [1]}]}, "layer 1 would lose every head: one head must stay"),
        ({"layers": [{"layer": 1, "heads": [0], "neurons": []}]}, "layer 1 would lose every neuron"),
        ({"layers": [{"layer": 1, "heads": [4], "neurons": [0]}]}, "heads must ascend from 0 to 3"),
        ({"layers": [{"layer": 1, "heads": [0], "neurons": [2, 1]}]}, "neurons must ascend"),
        ({"layers": [{"heads": [0], "neurons": [2]}]}, "not a structure"),
    ],
)
def test_a_structure_that_cannot_be_built_is_refused(change, message):
    with pytest.raises(ExciseError, match=message):
        from_json(SMALL.as_json() | change, "structure.json")


def test_a_structure_of_another_shape_is_refused(folder):
    with pytest.raises(ExciseError, match="2 heads and 24 neurons per layer, the model has 4 and 24"):
        cut(load_encoder(folder).model, Structure((Layer(0, (0,), (1,)),), 2, 24))
    with pytest.raises(ExciseError, match="keeps layer 3 of a model of 3 layers"):
        cut(load_encoder(folder).model, Structure((Layer(3, (0,), (1,)),), 4, 24))
