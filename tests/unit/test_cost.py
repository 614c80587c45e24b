"""What a variant costs: counted exactly, timed in turns, one ratio per round."""

import pytest
import torch

from excise.artefacts import read_json, write_json
from excise.errors import ExciseError
from excise.evaluation import timing
from excise.models.loading import load_model
from excise.tasks import cost
from excise.tasks.files import read_measurements


def test_passes_take_turns_in_changing_order_and_the_first_ones_do_not_count():
    said = []

    def one(name):
        said.append(name)
        return float(len(said))

    found = timing.in_turns({name: lambda name=name: one(name) for name in "abc"}, rounds=6)
    rounds = ["".join(said[start : start + 3]) for start in range(0, len(said), 3)]
    assert len(rounds) == 8
    assert all(sorted(each) == ["a", "b", "c"] for each in rounds)
    assert len(set(rounds)) > 2
    assert found == {
        name: [3.0 * number + each.index(name) + 1 for number, each in enumerate(rounds) if number >= 2]
        for name in "abc"
    }
    first, said = said, []
    timing.in_turns({name: lambda name=name: one(name) for name in "abc"}, rounds=6)
    assert said == first
    with pytest.raises(ExciseError, match="at least 1"):
        timing.in_turns({}, rounds=0)


def test_every_token_is_read_once_and_written_one_at_a_time(tiny_model, monkeypatch):
    model, lengths = load_model(tiny_model), []
    real = timing.last_hidden

    def seen(model, **inputs):
        lengths.append((inputs["input_ids"].shape[1], inputs["past_key_values"].get_seq_length()))
        return real(model, **inputs)

    monkeypatch.setattr(timing, "last_hidden", seen)
    assert min(timing.prefill_and_decode(model, 7, 3)) > 0
    assert lengths == [(7, 0), (1, 7), (1, 8), (1, 9)]


def test_a_pruned_folder_has_as_many_weights_and_fewer_that_are_not_zero(tiny_model, tmp_path, excise):
    options = ("--device", "cpu", "--threads", 1)
    excise("compress", tiny_model, "--method", "magnitude", *options, "--output", tmp_path / "half")
    for name, folder in (("baseline", tiny_model), ("half", tmp_path / "half")):
        output = tmp_path / f"{name}.json"
        timed = ("--prefill", 16, "--decode", 2, "--rounds", 3)
        excise("cost", "--model", folder, "--base", tiny_model, *options, *timed, "--output", output)
        excise("evaluate", "--variant", name, "--cost", output, "--output", tmp_path / f"{name}-measured.json")
    total = read_json(tmp_path / "half" / "compression.json")["total"]
    first, second = (read_measurements(tmp_path / f"{name}-measured.json") for name in ("baseline", "half"))
    before, after = (one.measurements[0] for one in (first, second))
    assert tuple(before.metrics) == cost.METRICS
    assert before.metrics["parameters"].figure == after.metrics["parameters"].figure
    taken = before.metrics["nonzero"].figure - after.metrics["nonzero"].figure
    assert taken * 1e6 == pytest.approx(total["zeros_made"])
    counted = sum(int(torch.count_nonzero(one)) for one in load_model(tmp_path / "half").parameters())
    assert after.metrics["nonzero"].figure * 1e6 == pytest.approx(counted)
    for one in (before, after):
        assert one.items == ["0", "1", "2"]
        assert (one.metrics["decode_ratio"].values > 0).all()
    assert (second.about.kind, second.about.unit, second.about.size) == ("candidate", "weight", 0.5)


def test_another_file_is_refused(tmp_path):
    write_json(tmp_path / "x.json", {}, {"parameters": 1})
    with pytest.raises(ExciseError, match="it lacks nonzero, bytes, seconds"):
        cost.read(tmp_path / "x.json")
