"""From a task's strongest heads to what compression protects, and what a variant answers to the judging pairs."""

import json

import pytest
import torch

from excise.artefacts import read_json, read_jsonl
from excise.circuits.agreement import strongest_and_others
from excise.edits.unit_list import read_units
from excise.errors import ExciseError
from excise.models.loading import load_model
from excise.tasks.files import read_measurements
from tests.unit.circuits import write_texts


@pytest.fixture(scope="module")
def nodes(tiny_model, tmp_path_factory):
    """Effects of 8 heads as ``excise patch`` writes them."""
    from excise.models.loading import identity

    rows = [{"node": name, "exact": effect} for name, effect in (("input", 9.0), ("m0", 5.0), ("m1", 0.1))]
    rows += [{"node": f"a{n // 4}.h{n % 4}", "exact": effect} for n, effect in enumerate([0, 3, -4, 1, 2, 0.5, 0, 1])]
    meta = {"stage": "patch", "graph": {"layers": 2, "heads": 4}, "pairs": {"task": "ioi"}}
    path = tmp_path_factory.mktemp("nodes") / "nodes.json"
    path.write_text(json.dumps({"meta": meta | {"model": identity(tiny_model, "float32")}, "nodes": rows}))
    return path


def named(path):
    return [(row["layer"], row["head"]) for row in read_units(path)["rows"]]


def test_the_strongest_heads_and_as_many_others(excise, nodes, tmp_path):
    strongest, other, again = (tmp_path / name for name in ("strongest", "other", "again"))
    excise("strongest-heads", "--nodes", nodes, "--share", 0.25, "--output", strongest)
    assert named(strongest) == [(0, 2), (0, 1)]
    for path in (other, again):
        excise("strongest-heads", "--nodes", nodes, "--share", 0.25, "--random", 1, "--output", path)
    assert other.read_bytes() == again.read_bytes()
    assert len(named(other)) == 2
    assert not set(named(other)) & set(named(strongest))


@pytest.mark.parametrize("share", ["0.01", "0.99"])
def test_none_or_all_heads_are_refused(excise, nodes, tmp_path, share):
    said = excise("strongest-heads", "--nodes", nodes, "--share", share, "--output", tmp_path / "x", fails=True)
    assert "to protect none or all of them says nothing" in said


def test_too_few_others_are_refused():
    with pytest.raises(ExciseError, match="take a smaller share"):
        strongest_and_others([3.0, 2.0, 1.0], 2, seed=0)


def test_answers_are_those_of_the_model_and_become_a_measurement(excise, tiny_model, nodes, tmp_path):
    texts, find, judge = (tmp_path / name for name in ("mine.jsonl", "find.jsonl", "judge.jsonl"))
    write_texts(tiny_model, texts)
    model, halves = ("--model", tiny_model), ("--find", find, "--judge", judge)
    excise("pairs", "--texts", texts, *model, "--pairs", 5, "--min-accuracy", 0, *halves)
    answers = tmp_path / "answers.json"
    excise("answer", *model, "--pairs", judge, "--batch-size", 2, "--output", answers)
    found = read_json(answers)
    given = dict(zip(found["ids"], found["logit_difference"], strict=True))
    loaded = load_model(tiny_model, device="cpu")
    for row in read_jsonl(judge)[1]:
        with torch.no_grad():
            logits = loaded(input_ids=torch.tensor([row["clean_ids"]])).logits[0, -1].double()
        expected = logits[row["answers"]].logsumexp(0) - logits[row["wrong"]].logsumexp(0)
        assert given[row["id"]] == pytest.approx(float(expected), abs=1e-4)

    units, pruned = tmp_path / "heads.json", tmp_path / "pruned.json"
    excise("strongest-heads", "--nodes", nodes, "--share", 0.25, "--output", units)
    excise("answer", *model, "--units", units, "--pairs", judge, "--batch-size", 2, "--output", pruned)
    assert read_json(pruned)["logit_difference"] != found["logit_difference"]
    measured = tmp_path / "measured.json"
    excise("evaluate", "--variant", "heads", "--units", units, "--pairs", pruned, "--output", measured)
    (one,) = read_measurements(measured).measurements
    assert one.name == "mine"
    assert one.metrics["logit_difference"].figure == pytest.approx(sum(read_json(pruned)["logit_difference"]) / 5)
    assert set(one.metrics["accuracy"].values.tolist()) <= {0.0, 1.0}
    assert "not written by excise answer" in excise(
        "evaluate", "--variant", "x", "--pairs", nodes, "--output", measured, fails=True
    )
