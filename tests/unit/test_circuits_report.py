"""The report of a task's circuit: a page for a study of the tiny model, and what its numbers must agree with."""

import csv
import json
import re

import numpy as np
import pytest

from excise.artefacts import read_json
from excise.circuits.agreement import auroc
from excise.cli import main
from excise.reporting.circuit_page import compared
from tests.unit.circuits import write_texts

METHODS = ("eap-ig", "eap", "random")


@pytest.fixture(scope="module")
def study(tiny_model, tmp_path_factory):
    """Everything that a report shows, by the commands; returns their folder."""
    folder = tmp_path_factory.mktemp("a study 'quoted'")

    def run(*words):
        assert main([str(word) for word in words]) == 0

    texts, find, judge = (folder / name for name in ("texts.jsonl", "find.jsonl", "judge.jsonl"))
    write_texts(tiny_model, texts)
    model = ("--model", tiny_model)
    run("pairs", "--texts", texts, *model, "--pairs", 6, "--min-accuracy", 0, "--find", find, "--judge", judge)
    scores = {method: folder / f"{method}.safetensors" for method in METHODS}
    for method, path in scores.items():
        run("edges", "--method", method, *model, "--pairs", find, "--output", path)
        on = ("--pairs", judge, "--edges", path)
        run("faithfulness", *model, *on, "--output", folder / f"curve-{method}.json")
    run("patch", *model, "--pairs", find, "--edges", *scores.values(), "--output", folder / "nodes.json")
    circuit = folder / "circuit.json"
    run("circuit", "--edges", scores["eap-ig"], "--size", 0.3, "--output", circuit)
    run("faithfulness", *model, "--pairs", judge, "--circuit", circuit, "--output", folder / "judged.json")
    removal = ("--ablation", "zero", "--threshold", 0.3)
    run("remove-heads", *model, "--pairs", find, "--judge", judge, *removal, "--output", folder / "heads.json")
    (folder / "settings.json").write_text(json.dumps({"experiment": "a <study>", "circuits": {"mine": {"pairs": 6}}}))
    return folder


def command(folder, output, **changes):
    """The words of ``excise report-circuit``."""
    options = {
        "name": ["mine"],
        "settings": [folder / "settings.json"],
        "pairs": [folder / "find.jsonl", folder / "judge.jsonl"],
        "nodes": [folder / "nodes.json"],
        "curves": [folder / f"curve-{method}.json" for method in METHODS],
        "circuits": [folder / "circuit.json"],
        "judged": [folder / "judged.json"],
        "heads": [folder / "heads.json"],
        "known-heads": ["L0H1", "L1H2"],
        "data": [output.parent / "data"],
        "output": [output],
    } | changes
    words = [word for name, values in options.items() for word in (f"--{name}", *values)]
    return ["report-circuit", *map(str, words)]


def test_a_page_says_what_was_measured(study, tmp_path):
    output = tmp_path / "report.html"
    assert main(command(study, output)) == 0
    text = output.read_text()
    assert "a &lt;study&gt;" in text
    assert "<script" not in text
    assert re.findall(r"src=\"(?!data:)", text) == []
    judged = read_json(study / "judged.json")["circuit"]
    assert f"30 % of the edges ({judged['edges']}" in text
    assert "AUROC, known heads" in text
    assert text.count("<figure>") == 3
    with (tmp_path / "data/faithfulness.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(METHODS) * 2 * 10
    curve = read_json(study / "curve-eap.json")["rankings"]["signed"]
    found = [float(row["faithfulness"]) for row in rows if (row["method"], row["ranking"]) == ("eap", "signed")]
    assert found == curve["faithfulness"]
    again = tmp_path / "again.html"
    assert main(command(study, again)) == 0
    assert again.read_bytes() == output.read_bytes()


def test_a_page_needs_neither_removed_nor_known_heads(study, tmp_path):
    output = tmp_path / "report.html"
    words = command(study, output, heads=[])
    place = words.index("--known-heads")
    assert main(words[:place] + words[place + 3 :]) == 0
    assert "Heads removed" not in output.read_text()
    assert "AUROC" not in output.read_text()


def test_methods_are_compared_pair_by_pair(study):
    first, other = (read_json(study / f"curve-{method}.json") for method in METHODS[:2])
    value, low, high = compared(first, other, "cmd")
    areas = [one["rankings"]["absolute"]["areas"]["cmd"] for one in (other, first)]
    assert value == pytest.approx(areas[0] - areas[1])
    assert low <= value <= high
    assert compared(first, first, "cpr") == (0, 0, 0)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"known-heads": ["L9H9"]}, "L9H9 is no head of"),
        ({"nodes": ["heads.json"]}, "not what excise patch writes"),
        ({"curves": ["judged.json"]}, "not what excise faithfulness writes with rankings"),
        ({"circuits": ["circuit.json", "circuit.json"]}, "give as many"),
    ],
)
def test_what_does_not_belong_together_is_refused(excise, study, tmp_path, changes, said):
    files = {
        name: [study / value if value.endswith("json") else value for value in values]
        for name, values in changes.items()
    }
    assert said in excise(*command(study, tmp_path / "report.html", **files), fails=True)


def test_auroc_is_the_share_of_pairs_in_the_right_order():
    scores, known = np.array([3.0, -2.0, 2.0, 0.5]), np.array([False, True, False, True])
    assert auroc(scores, known) == pytest.approx((0 + 0.5 + 0 + 0) / 4)
    assert auroc(scores, ~known) == pytest.approx(3.5 / 4)
