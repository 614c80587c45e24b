"""Compressed variants through the real Snakemake: no prompts, two texts, a goal, a variant of a variant, an export."""

import copy
import json

import pytest

from excise.checks import validated
from excise.reporting.summary import read_summary
from excise.tasks.files import read_measurements
from excise.tasks.registry import addresses
from tests.workflow.conftest import planned

pytestmark = pytest.mark.slow

CALIBRATION = {"text": "words", "windows": 4, "seqlen": 16}
VARIANTS = {
    "wanda": {"edit": "compress", "method": "wanda", "patterns": ["50%", "2:4"], "calibration": CALIBRATION},
    "again": {"edit": "compress", "method": "magnitude", "patterns": ["3/4"], "base": "wanda-0.5"},
    "cut": {"edit": "slice", "keep": [0.5], "multiple": 4, "calibration": dict(CALIBRATION)},  # not wanda's own
}
PLANNED = {
    "all": 1,
    "compress": 3,
    "cost": 5,
    "compress_and_keep": 1,
    "evaluate": 5,
    "fetch_model": 1,
    "fetch_text": 2,
    "inspect_model": 1,
    "perplexity": 10,
    "report": 1,
    "settings": 1,
    "summary": 1,
}


@pytest.fixture(scope="module")
def compressed(make_experiment):
    experiment = make_experiment()
    config = experiment.config
    (experiment.folder / "another text.txt").write_text((experiment.folder / "a text.txt").read_text()[::-1])
    for section in ("prompts", "generations", "references", "attribution", "seeds"):
        del config[section]
    config["experiment"] = "compressed"
    config["texts"]["others"] = {"source": "another text.txt", "label": "Other words"}
    config["variants"] = copy.deepcopy(VARIANTS)
    config["export"] = "wanda-2of4"
    config["goal"] = {"lower": "others.perplexity", "within": {"words.perplexity": "+50 %"}}
    config["evaluation"] = {
        "perplexity": [
            {"text": "words", "seqlen": 16, "windows": 4, "skip": 4, "separator": " "},
            {"text": "others", "seqlen": 16, "windows": 6},
        ],
        "cost": {"prefill": 8, "decode": 2, "rounds": 2},
        "resamples": 200,
    }
    result = experiment.snakemake()
    assert result.returncode == 0, result.stderr[-6000:]
    assert planned(result.stderr + result.stdout) == PLANNED
    return experiment


def test_variants_without_prompts_end_with_a_summary_and_a_report(compressed):
    summary = read_summary(compressed.run_folder / "summary.json")
    names = [row.variant for row in summary.variants]
    assert names == ["baseline", "again-0.75", "cut-0.5", "wanda-0.5", "wanda-2of4"]
    about = {row.variant: row.about for row in summary.variants}
    kept = about["wanda-2of4"]
    assert (kept.pattern, kept.size, kept.series) == ("2:4", 0.5, "wanda 2:4")
    assert (about["again-0.75"].size, about["cut-0.5"].unit) == (0.75, "neuron")
    assert summary.goal.metric == "others.perplexity"
    assert [column.address for column in summary.columns] == addresses(validated(compressed.config))
    page = (compressed.run_folder / "report.html").read_text()
    assert "wanda-2of4" in page
    assert "Other words" in page


def test_only_the_exported_folder_stays(compressed):
    folders = sorted(path.parent.name for path in compressed.run_folder.rglob("compression.json"))
    assert folders == ["wanda-2of4"]
    total = json.loads((compressed.run_folder / "export/wanda-2of4/compression.json").read_text())["total"]
    assert 2 * total["zeros"] == total["weights"]


def test_every_variant_is_measured_on_its_own_folder(compressed):
    found = {
        name: read_measurements(compressed.run_folder / f"variants/{name}/measurements.json")
        for name in ("baseline", "wanda-0.5", "again-0.75")
    }
    models = {name: one.meta["model"] for name, one in found.items()}
    assert len({one["fingerprint"] for one in models.values()}) == 3
    assert models["again-0.75"]["base"]["fingerprint"] == models["wanda-0.5"]["fingerprint"]
    assert models["wanda-0.5"]["base"]["fingerprint"] == models["baseline"]["fingerprint"]


def test_a_changed_recipe_makes_its_folder_and_what_was_made_of_it_again(compressed):
    """The folders are gone, so it is the jobs that measured them which must notice."""
    assert "Nothing to be done" in compressed.snakemake("--dry-run").stdout
    calibration = compressed.config["variants"]["wanda"]["calibration"]
    calibration["windows"] = 3
    try:
        jobs = planned(compressed.snakemake("--dry-run").stdout)
    finally:
        calibration["windows"] = 4
    changed = {
        "compress": 2,
        "compress_and_keep": 1,
        "perplexity": 6,
        "cost": 3,
        "evaluate": 3,
        "summary": 1,
        "report": 1,
    }
    assert {rule: jobs.get(rule) for rule in changed} == changed
    assert "fetch_text" not in jobs
