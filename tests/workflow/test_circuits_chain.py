"""Circuits through the real Snakemake: pairs of a user's own, no prompts, scores in shards, a report."""

import re

import pytest

from excise.artefacts import read_json, read_jsonl
from tests.unit.circuits import write_texts
from tests.workflow.conftest import copy_of, planned

pytestmark = pytest.mark.slow

PLANNED = {
    "all": 1,
    "choose_circuit": 1,
    "fetch_model": 1,
    "inspect_model": 1,
    "judge_circuit": 2,
    "judge_curve": 2,
    "make_pairs": 1,
    "merge_edges": 1,
    "patch_nodes": 1,
    "remove_edges": 1,
    "remove_heads": 1,
    "report_circuit": 1,
    "score_edges": 3,
    "settings": 1,
}


@pytest.fixture(scope="module")
def circuits(make_experiment, tiny_model):
    experiment = make_experiment()
    config = experiment.config
    for section in ("prompts", "generations", "references", "attribution", "seeds", "variants", "evaluation", "export"):
        del config[section]
    write_texts(tiny_model, experiment.folder / "my päirs.jsonl")
    config["circuits"] = {
        "my 'own'": {
            "texts": "my päirs.jsonl",
            "pairs": 6,
            "min_accuracy": 0,
            "batch_size": 3,
            "methods": ["eap-ig", "random"],
            "shards": 2,
            "sizes": [0.2],
            "remove_heads": {"threshold": 0.2, "form": "per-step"},
            "remove_edges": {"candidates": 0.5, "threshold": 0.001},
        }
    }
    result = experiment.snakemake()
    assert result.returncode == 0, result.stderr[-6000:]
    assert planned(result.stderr + result.stdout) == PLANNED
    return experiment


def test_the_chain_ends_with_a_report(circuits):
    folder = circuits.run_folder / "circuits/my 'own'"
    page = (folder / "report.html").read_text()
    assert page.count("<figure>") == 3
    assert {path.name for path in (folder / "report-data").glob("*.csv")} == {
        "faithfulness.csv",
        "circuit.csv",
        "heads.csv",
    }
    halves = [{row["id"] for row in read_jsonl(folder / f"pairs/{half}.jsonl")[1]} for half in ("find", "judge")]
    assert not halves[0] & halves[1]
    assert read_json(folder / "judged/eap-ig-0.2.json")["circuit"]["edges"] > 0
    left = read_json(folder / "circuits/acdc.json")
    assert 0 < left["sizes"]["edges"] < left["asked"]
    assert "left by ACDC" in page
    again = circuits.snakemake("--dry-run")
    assert "Nothing to be done" in again.stdout + again.stderr


def test_another_size_judges_one_more_circuit_and_scores_nothing_anew(circuits, tmp_path):
    experiment = copy_of(circuits, tmp_path)
    experiment.config["circuits"]["my 'own'"]["sizes"].append(0.6)
    jobs = planned(experiment.snakemake("--dry-run").stdout)
    assert jobs == {"all": 1, "choose_circuit": 1, "judge_circuit": 1, "report_circuit": 1, "settings": 1}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"min_accuracy": 1.0}, "does not do this task"),
        ({"task": "ioi"}, "give task or texts, and not both"),
        ({"methods": ["eap", "eep"]}, "Did you mean 'eap'"),
        ({"methods": ["eap"], "objective": "kl"}, "exactly zero"),
        ({"ablation": "zero"}, "eap-ig goes from the corrupted prompt"),
        ({"ablation": "zero", "methods": ["relp-ig"]}, "relp-ig goes from the corrupted prompt"),
        ({"objective": "kl", "methods": ["relp-qk"]}, "where relp-qk takes it"),
        ({"sizes": [1.5]}, "sizes"),
    ],
)
def test_what_cannot_end_well_stops_early(circuits, tmp_path, change, said):
    experiment = copy_of(circuits, tmp_path)
    experiment.config["circuits"]["my 'own'"] |= change
    result = experiment.snakemake(*([] if "min_accuracy" in change else ["--dry-run"]))
    assert result.returncode != 0
    assert said in result.stderr + result.stdout
    assert not re.search(r"rule score_edges:[^§]*Finished", result.stderr)
