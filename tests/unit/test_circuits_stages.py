"""The commands of circuits on the tiny model: one whole study, and what they refuse."""

import json

import pytest

from excise.artefacts import read_json, read_jsonl
from excise.circuits.faithfulness import FRACTIONS
from tests.unit.circuits import write_texts


@pytest.fixture(scope="module")
def texts(tmp_path_factory, tiny_model):
    """Pairs of a user's own, on each of which the random model's answer depends on what is changed."""
    return write_texts(tiny_model, tmp_path_factory.mktemp("texts") / "mine.jsonl")


@pytest.fixture
def pairs(excise, tiny_model, texts, tmp_path):
    """Both halves of the pairs."""
    find, judge = tmp_path / "find.jsonl", tmp_path / "judge.jsonl"
    options = ("--pairs", 4, "--min-accuracy", 0, "--find", find, "--judge", judge)
    excise("pairs", "--texts", texts, "--model", tiny_model, *options)
    return find, judge


def test_a_study(excise, tiny_model, pairs, tmp_path):
    find, judge = pairs
    meta, rows = read_jsonl(find)
    assert (meta["task"], meta["half"], len(rows)) == ("mine", "find", 4)
    assert not {row["id"] for row in rows} & {row["id"] for row in read_jsonl(judge)[1]}
    model, scores = ("--model", tiny_model), {}
    for method in ("eap", "eap-ig", "relp-qk", "random", "weight-magnitude"):
        scores[method] = tmp_path / f"{method}.safetensors"
        excise("edges", "--method", method, *model, "--pairs", find, "--output", scores[method])
    shards = [tmp_path / f"shard{n}.safetensors" for n in (0, 1)]
    for n, path in enumerate(shards):
        batches = ("--batch-size", 2, "--shard", f"{n}/2")
        excise("edges", "--method", "eap", *model, "--pairs", find, *batches, "--output", path)
    whole, merged = tmp_path / "whole.safetensors", tmp_path / "merged.safetensors"
    excise("edges", "--method", "eap", *model, "--pairs", find, "--batch-size", 2, "--output", whole)
    excise("merge", *shards[::-1], "--output", merged)
    assert merged.read_bytes() == whole.read_bytes()

    nodes = tmp_path / "nodes.json"
    table = tmp_path / "nodes.csv"
    neurons = ("--neurons", 6, "--sampled", 6)
    compared = (scores["eap"], scores["relp-qk"])
    excise("patch", *model, "--pairs", find, "--edges", *compared, "--output", nodes, "--csv", table, *neurons)
    found = read_json(nodes)
    assert [row["name"] for row in found["nodes"][:3]] == ["input", "L0H0", "L0H1"]
    assert [row["group"] for row in found["neurons"]["rows"]] == ["strongest"] * 6 + ["sampled"] * 6
    assert found["agreement"].keys() == {"eap", "relp-qk"}
    assert table.read_text().splitlines()[0] == "node,name,exact,standard_error,eap,relp-qk"

    circuit = tmp_path / "circuit.json"
    excise("circuit", "--edges", scores["eap-ig"], "--size", 40, "--select", "greedy", "--output", circuit)
    chosen = read_json(circuit)
    assert chosen["sizes"]["edges"] == len(chosen["edges"]) <= 40
    assert 0 < chosen["stability"]["bootstrap_mean"] <= 1

    curve, one = tmp_path / "curve.json", tmp_path / "one.json"
    excise("faithfulness", *model, "--pairs", judge, "--edges", scores["eap-ig"], "--output", curve)
    excise("faithfulness", *model, "--pairs", judge, "--circuit", circuit, "--output", one)
    ranked = read_json(curve)
    assert ranked["fractions"] == list(FRACTIONS)
    assert ranked["rankings"]["signed"]["faithfulness"][-1] == pytest.approx(1)
    assert len(ranked["values"]["signed"]) == len(FRACTIONS)
    judged = read_json(one)
    assert judged["circuit"]["edges"] + judged["complement"]["edges"] == chosen["edges_in_graph"]

    left = tmp_path / "left.json"
    options = ("--candidates", 60, "--objective", "logit-difference", "--threshold", 0.01)
    excise("remove-edges", *model, "--pairs", find, "--edges", scores["eap-ig"], *options, "--output", left)
    assert 0 < len(read_json(left)["edges"]) < 60
    excise("faithfulness", *model, "--pairs", judge, "--circuit", left, "--output", one)
    assert read_json(one)["meta"]["method"] == "acdc"

    said = excise("faithfulness", *model, "--pairs", find, "--circuit", circuit, "--output", one, fails=True)
    assert "had no part in finding it" in said

    heads = tmp_path / "heads.json"
    excise(
        "remove-heads", *model, "--pairs", find, "--judge", judge, "--threshold", 0.3, "--ablation", "zero",
        "--output", heads,
    )  # fmt: skip
    manifest = read_json(heads)
    assert len(manifest["kept"]) + len(manifest["removed"]) == manifest["heads"] == 8
    assert manifest["judged"]["pairs"] == 4


def test_a_model_that_cannot_do_the_task_is_refused(excise, tiny_model, texts, tmp_path):
    files = ("--find", tmp_path / "f", "--judge", tmp_path / "j")
    said = excise("pairs", "--texts", texts, "--model", tiny_model, "--pairs", 4, *files, fails=True)
    assert "does not do this task" in said
    assert not (tmp_path / "f").exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("--objective", "kl"), "exactly zero"),
        (("--objective", "logits"), "is not one of"),
        (("--ablation", "mena"), "Did you mean 'mean'"),
        (("--method", "acdc"), "unknown method"),
        (("--dtype", "float16"), "float16"),
        (("--device", "spread"), "one device"),
        (("--batch-size", "0"), "less than the minimum of 1"),
    ],
)
def test_bad_options_are_refused(excise, tiny_model, pairs, tmp_path, change, said):
    options = ("--method", "eap", "--model", tiny_model, "--pairs", pairs[0], "--output", tmp_path / "x")
    assert said in excise("edges", *options, *change, fails=True)


def test_empty_and_whole_circuits_are_refused(excise, tiny_model, pairs, tmp_path):
    scores, circuit = tmp_path / "scores", tmp_path / "circuit"
    excise("edges", "--method", "eap", "--model", tiny_model, "--pairs", pairs[0], "--output", scores)
    for size, said in (("1", "is empty"), ("100000", "of none or of all"), ("0.0001", "of none or of all")):
        assert said in excise("circuit", "--edges", scores, "--size", size, "--output", circuit, fails=True)


def test_a_circuit_that_was_emptied_is_refused(excise, tiny_model, pairs, tmp_path):
    scores, circuit = tmp_path / "scores", tmp_path / "circuit"
    excise("edges", "--method", "eap", "--model", tiny_model, "--pairs", pairs[0], "--output", scores)
    excise("circuit", "--edges", scores, "--size", 40, "--output", circuit)
    circuit.write_text(json.dumps(read_json(circuit) | {"edges": []}))
    options = ("--model", tiny_model, "--pairs", pairs[1], "--circuit", circuit, "--output", tmp_path / "x")
    assert "of none or of all edges" in excise("faithfulness", *options, fails=True)


def test_plots_are_drawn_and_depend_on_the_data_alone(excise, tmp_path):
    nodes, curve = tmp_path / "nodes.json", tmp_path / "curve.json"
    names = ("input", "a0.h0", "a0.h1", "m0", "a1.h0", "a1.h1", "m1")
    rows = [{"node": name, "name": name, "exact": place - 2.5, "eap": -1.0} for place, name in enumerate(names)]
    meta = {"graph": {"layers": 2, "heads": 2, "parallel": False}}
    nodes.write_text(json.dumps({"meta": meta, "nodes": rows}))
    ranking = {"faithfulness": [0.1, 1.0], "intervals": [[0, 0.2], [1, 1]], "areas": {"cpr": 0.5, "cmd": 0.5}}
    found = {"fractions": [0.01, 1], "rankings": {"signed": ranking, "absolute": ranking}}
    curve.write_text(json.dumps({"meta": {"method": "eap", "pairs": {"sha256": "x"}}, **found}))
    pictures = []
    for number in range(2):
        heat, line = tmp_path / f"heat{number}.svg", tmp_path / f"line{number}.svg"
        excise("draw-circuit", "--nodes", nodes, "--heat-map", heat, "--faithfulness", curve, "--curves", line)
        pictures.append((heat.read_bytes(), line.read_bytes()))
    assert pictures[0] == pictures[1]
    assert all(picture.count(b"<image") + picture.count(b"<path") > 5 for picture in pictures[0])
    said = excise("draw-circuit", "--nodes", nodes, "--heat-map", tmp_path / "x.svg", "--score", "eep", fails=True)
    assert "Did you mean 'eap'" in said
    assert "ends in .svg or .png" in excise(
        "draw-circuit", "--nodes", nodes, "--heat-map", tmp_path / "x.pdf", fails=True
    )
