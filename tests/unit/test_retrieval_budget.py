"""A budget of measured time: the choice is the best there is, and what cannot be reached is refused."""

import itertools
import json

import pytest
import torch

from excise.artefacts import read_json
from excise.errors import ExciseError
from excise.models.encoder import load_encoder
from excise.retrieval import budget
from excise.retrieval.saving import size_info
from tests.unit.encoders import make_encoder
from tests.unit.test_retrieval import some_texts

LAYERS, NEURONS, HEADS = 2, 24, 4


def table(dense: float = 100.0, real: float = 1.0) -> dict[str, object]:
    """Times of an imagined machine: a head costs 4 ms, a neuron 1 ms and the first ones more; of the sum a share is real."""
    saved = {
        "neurons": [[count, 24.0 - count + (2 if count < 6 else 0)] for count in budget.numbers("neurons", NEURONS)],
        "heads": [[count, 4.0 * (HEADS - count)] for count in budget.numbers("heads", HEADS)],
    }
    saved["neurons"][-1][1] = saved["heads"][-1][1] = 0.0
    most = LAYERS * (saved["neurons"][0][1] + saved["heads"][0][1])
    return {"shape": [32, 64], "dense": dense, "saved": saved, "together": [[0.0, 0.0], [most, most * real]]}


def scores(seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        kind: torch.rand(LAYERS, width, generator=generator, dtype=torch.float64) ** 3
        for kind, width in (("neurons", NEURONS), ("heads", HEADS))
    }


def lost_and_saved(counts: list[tuple[str, int, int]], given: dict[str, torch.Tensor]) -> tuple[float, float]:
    lost = sum(
        float(given[kind][layer].sort().values[: given[kind].shape[1] - stay].sum()) for kind, layer, stay in counts
    )
    times = {kind: dict(map(tuple, rows)) for kind, rows in table()["saved"].items()}
    return lost, sum(times[kind][stay] for kind, _, stay in counts)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("share", [0.8, 0.5])
def test_the_choice_is_the_best_of_all(share, seed):
    given = scores(seed)
    groups = [(kind, layer) for kind in ("neurons", "heads") for layer in range(LAYERS)]
    every = itertools.product(*(budget.numbers(kind, given[kind].shape[1]) for kind, _ in groups))
    best = min(
        lost
        for stays in every
        for lost, saved in [lost_and_saved([(*group, stay) for group, stay in zip(groups, stays, strict=True)], given)]
        if saved >= 100 * (1 - share) + 0.3  # what rounding down to bins may cost
    )
    found = budget.within(given, table(), share)
    kept = {"neurons": [row.neurons for row in found.layers], "heads": [row.heads for row in found.layers]}
    lost, saved = lost_and_saved([(kind, layer, len(kept[kind][layer])) for kind, layer in groups], given)
    assert saved >= 100 * (1 - share)
    assert lost <= best + 1e-12
    for kind, layer in groups:  # the best ones of each layer stay
        top = given[kind][layer].topk(len(kept[kind][layer])).indices.tolist()
        assert set(kept[kind][layer]) == set(top)


def test_savings_that_do_not_add_up_are_made_up_for():
    given = scores(0)
    found, twice = budget.within(given, table(), 0.5), budget.within(given, table(real=0.5), 0.75)
    assert found == twice


def test_a_slow_round_changes_nothing():
    steps = [[300.0, 301.0, 299.0], [100.0, 99.0, 101.0], [40.0, 41.0, 39.0]]
    slow = [[pace * each for each, pace in zip(row, (1, 3, 1), strict=True)] for row in steps]
    assert budget.steady(slow) == pytest.approx([300, 100, 40], rel=0.02)


def test_what_cannot_be_reached_is_refused():
    with pytest.raises(ExciseError, match=r"documents still take 0\.\d\d of the dense encoder's time"):
        budget.within(scores(0), table(dense=1000.0), 0.5)
    with pytest.raises(ExciseError, match="above 0 and below 1"):
        budget.within(scores(0), table(), 1.0)
    with pytest.raises(ExciseError, match="times neurons of an encoder with 24 a layer, not 30"):
        budget.within(scores(0) | {"neurons": torch.ones(LAYERS, 30)}, table(), 0.5)


def test_layers_with_fewer_neurons_take_less_time(tmp_path):
    wide = {"hidden_size": 64, "intermediate_size": 1536, "max_position_embeddings": 80}
    folder = make_encoder(tmp_path / "wide", **wide)
    for name, key in (("sentence_bert_config", "max_seq_length"), ("tokenizer_config", "model_max_length")):
        path = folder / f"{name}.json"
        path.write_text(json.dumps((read_json(path) if path.is_file() else {}) | {key: 70}))
    found = budget.latencies(load_encoder(folder), rounds=3)
    neurons = dict(map(tuple, found["saved"]["neurons"]))
    assert sorted(neurons) == budget.numbers("neurons", 1536)
    assert neurons[1536] == 0
    assert neurons[24] > neurons[768] > 0
    assert 2 * neurons[24] < found["dense"]  # three layers
    assert [count for count, _ in found["saved"]["heads"]] == [1, 2, 3, 4]
    for rows in found["saved"].values():  # fewer units never save less
        saved = [milliseconds for _, milliseconds in rows]
        assert saved == sorted(saved, reverse=True)


def test_the_stage_spends_a_budget(tmp_path, excise):
    folder = make_encoder(tmp_path / "model", num_hidden_layers=LAYERS)
    texts, values = tmp_path / "texts.jsonl", tmp_path / "scores.safetensors"
    texts.write_text(
        "".join(json.dumps({"id": str(n), "text": text}) + "\n" for n, text in enumerate(some_texts(20, seed=1)))
    )
    excise("importance", "--model", folder, "--texts", texts, "--output", values)
    meta = {"stage": "encoder-latency", "model": load_encoder(folder).info}
    (tmp_path / "latency.json").write_text(json.dumps({"meta": meta, **table()}))
    options = ("--model", folder, "--scores", values, "--output", tmp_path / "small")
    spent = ("--latency", tmp_path / "latency.json", "--time", 0.6)
    excise("shrink", *options, *spent)
    info = read_json(tmp_path / "small" / "excise.json")
    assert info["settings"]["time"] == 0.6
    assert info["variant"]["size"] == 40
    size = size_info(load_encoder(tmp_path / "small"))
    gone = sum(24 - count for count in size["neurons"]) + 4 * sum(HEADS - count for count in size["heads"])
    assert gone >= 36  # 40 ms, up to 2 ms a layer of them for the first neurons
    assert "belong together" in excise("shrink", *options, "--time", 0.6, fails=True)
    assert "leave --neurons" in excise("shrink", *options, *spent, "--neurons", 0.5, fails=True)
    excise("importance", "--model", folder, "--method", "magnitude", "--output", values)
    assert "have different units" in excise("shrink", *options, *spent, fails=True)
    meta["model"] = meta["model"] | {"fingerprint": "0"}
    (tmp_path / "latency.json").write_text(json.dumps({"meta": meta, **table()}))
    assert "not what excise encoder-latency wrote" in excise("shrink", *options, *spent, fails=True)
