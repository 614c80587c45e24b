"""What encoders cost is measured in turns, and a smaller one is not said to be what it is not."""

import json

import pytest

from excise.errors import ExciseError
from excise.models.encoder import load_encoder
from excise.retrieval import latency
from tests.unit.encoders import make_encoder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_encoder(tmp_path_factory.mktemp("encoder") / "model")


def test_encoders_take_turns_and_the_first_two_passes_do_not_count(folder, monkeypatch):
    encoders = {"dense": load_encoder(folder), "other": load_encoder(folder)}
    order = []

    def one_pass(encoder, texts, tokens):
        order.append("dense" if encoder is encoders["dense"] else "other")
        slow = 1000 if len(order) <= 4 else (len(order) + 1) // 2  # the number of the round
        return slow * (2 if order[-1] == "dense" else 1)

    monkeypatch.setattr(latency, "_one_pass", one_pass)
    found = latency.measure(encoders, rounds=3, shapes=[(2, 5)])["2x5"]
    assert [set(order[start : start + 2]) for start in range(0, 10, 2)] == [{"dense", "other"}] * 5
    assert found["dense"] == {"milliseconds": 8, "lowest": 6, "speedup": 1, "rounds": [6, 8, 10]}
    assert found["other"] == {"milliseconds": 4, "lowest": 3, "speedup": 2, "rounds": [3, 4, 5]}


def test_more_work_takes_more_time(tmp_path):
    wide = {"hidden_size": 64, "intermediate_size": 2048}
    small, large = (load_encoder(make_encoder(tmp_path / str(n), num_hidden_layers=n, **wide)) for n in (1, 12))
    found = latency.measure({"large": large, "small": small}, rounds=3, shapes=[(16, 12)])["16x12"]
    assert found["small"]["speedup"] > 2


def test_what_cannot_be_timed_is_refused(folder, tmp_path, excise):
    encoder = load_encoder(folder)
    with pytest.raises(ExciseError, match="reads 12 tokens; 32x64 cannot be timed"):
        latency.measure({"dense": encoder}, rounds=1)
    with pytest.raises(ExciseError, match="at least 1"):
        latency.measure({"dense": encoder}, rounds=0)
    assert "NAME=FOLDER" in excise("encoder-cost", folder, "--output", tmp_path / "c.json", fails=True)


def test_the_stage_writes_sizes_and_times(tmp_path, excise):
    folder = make_encoder(tmp_path / "m", max_position_embeddings=70)
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 64}')
    tokenizer = json.loads((folder / "tokenizer_config.json").read_text()) | {"model_max_length": 70}
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    excise("encoder-cost", f"dense={folder}", "--rounds", 1, "--output", tmp_path / "cost.json")
    body = json.loads((tmp_path / "cost.json").read_text())
    assert body["times"].keys() == {"1x12", "32x64"}
    assert body["times"]["1x12"]["dense"]["speedup"] == 1
    assert body["sizes"]["dense"]["weight_bytes"] == 4 * body["sizes"]["dense"]["parameters"]
