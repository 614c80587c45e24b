"""Other chains than the usual one, each an experiment of its own through the real Snakemake."""

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from excise.reporting.summary import read_summary
from tests.conftest import REPOSITORY, WORDS
from tests.unit.scorers import bert_folder, save_classifier
from tests.workflow.conftest import PLANNED, planned

pytestmark = pytest.mark.slow


def test_too_many_neurons_stop_before_anything_is_generated(make_experiment):
    experiment = make_experiment()
    experiment.config["variants"]["lrp"]["count"] = [2, 49]
    experiment.config["export"] = None
    result = experiment.snakemake()
    assert result.returncode != 0
    assert "49" in result.stderr
    assert "48" in result.stderr
    assert not (experiment.run_folder / "generations").exists()


def test_a_scorer_that_cannot_be_fetched_stops_before_anything_is_generated(make_experiment):
    experiment = make_experiment()
    experiment.config["evaluation"]["scorers"].append("hf:me/nothing at all")
    result = experiment.snakemake()
    assert result.returncode != 0
    assert "Run excise fetch-scorer once where there is a network" in result.stdout + result.stderr
    assert "localrule fetch_scorer:" in result.stdout + result.stderr
    assert not list(experiment.folder.rglob("generations*.jsonl"))
    (experiment.folder / "inputs/scorers").mkdir(exist_ok=True)
    (experiment.folder / "inputs/scorers/hf%3Ame%2Fnothing%20at%20all.json").touch()
    assert "fetch_scorer" not in planned(experiment.snakemake("--dry-run").stdout)


def test_a_behaviour_of_the_users_own_goes_through_the_whole_chain(make_experiment):
    """Judged by a classifier in a local folder and by repetition; decoded greedily; and no word of toxicity.

    How many neurons are pruned is chosen on prompts of their own; beside them all experts are dampened about their mean.
    """
    experiment = make_experiment()
    folder = experiment.folder / "a 'judge'"
    base = bert_folder(experiment.folder / "bert", WORDS)
    save_classifier(folder, base, ["calm", "hasty"])
    judge = f"hf:{folder}"
    corpora = {"target": "hasty", "retain": "words"}
    experiment.config |= {
        "behaviour": {"noun": "haste", "adjective": "hasty"},
        "seeds": [0],
        "generations": {"greedy": True, "max_new_tokens": 5, "scorer": judge},
        "scorers": {judge: {"label": "hasty"}},
        "attribution": {"batch_size": 2},
        "variants": {
            "lrp": {"method": "lrp", **corpora, "count": [2, 3], "choose": "best"},
            "random": {"method": "random", "matched_to": "best"},
            "experts": {"method": "aura", **corpora, "scale": "expertise", "ablation": "mean", "count": ["all"]},
            "heads": {"method": "wanda", "unit": "head", **corpora, "ablation": "mean", "count": [1]},
        },
        "tuning": {
            "perplexity": {"text": "words", "seqlen": 16, "windows": 4, "skip": 4},
            "max_perplexity_increase": 0.4,
        },
        "export": "experts-all",
    }
    experiment.config["prompts"]["tuning_fraction"] = 0.25
    references = experiment.config["references"]
    hasty = references["toxic"] | {"at_least": 0.01, "span": "generation"}
    experiment.config["references"] = {"hasty": hasty, "words": references["words"]}
    evaluation = experiment.config["evaluation"] | {"greedy": True, "scorers": [judge, "repetition"], "threshold": 0.85}
    del evaluation["num_generations"]
    experiment.config["evaluation"] = evaluation
    result = experiment.snakemake()
    assert result.returncode == 0, result.stderr[-6000:]
    summary = read_summary(experiment.run_folder / "summary.json")
    noun = experiment.config["behaviour"]["noun"]
    assert [column.label for column in summary.of_task("behaviour")[::4]] == ["hf:a 'judge'", "repetition"]
    assert summary.goal.metric == f"{noun}.share"
    figures = {address: cell.figure for address, cell in summary.baseline.cells.items()}
    assert figures[f"{noun}[repetition].mean"] == pytest.approx(1 - figures["language.rur"])
    settings = summary.target.settings
    assert settings["scorer"]["label"] == "hasty"
    assert settings["generation"]["greedy"]
    assert settings["num_generations"] == 1
    page = re.sub(r"base64,[^\"]+", "", (experiment.run_folder / "report.html").read_text())
    assert "hasty continuations" in page
    tuning = read_summary(experiment.run_folder / "tuning/best.json")
    assert [row.variant for row in tuning.variants] == ["baseline", "lrp-2", "lrp-3"]
    assert tuning.budgets[0].settings["protocol"] == "windows-16x4-skip-4"
    assert tuning.target.items + summary.target.items == 12
    experts, best, like, heads = (
        json.loads((experiment.run_folder / f"units/{name}.json").read_text())
        for name in ("experts-all", "best", "random", "heads-1")
    )
    assert best["chosen"]["variant"] == "lrp-2"  # lrp-3 leaves every continuation hasty, as it was
    sizes = [len(chosen["rows"]) for chosen in (experts, best, like, heads)]
    about = {row.variant: row.about for row in summary.variants}
    assert [about[name].size for name in ("experts-all", "best", "random", "heads-1")] == sizes
    assert 48 > sizes[0] > sizes[1] == sizes[2] > sizes[3] == 1
    assert heads["rows"][0].keys() >= {"layer", "head", "mean"}
    layers = [sorted(row["layer"] for row in chosen["rows"]) for chosen in (best, like)]
    assert layers[0] == layers[1]
    treatments = {name: (one.unit, one.scale, one.ablation) for name, one in about.items() if name != "baseline"}
    assert treatments == {
        "experts-all": ("neuron", "per row", "mean"),
        "best": ("neuron", 0, "zero"),
        "random": ("neuron", 0, "zero"),
        "heads-1": ("head", 0, "mean"),
    }
    assert len({row.cells["words.perplexity"].figure for row in summary.variants}) == 5, (
        "each intervention does something of its own"
    )
    means = sorted(experiment.run_folder.glob("scores/*/mean-activation/*"))
    assert [path.parts[-3:] for path in means] == [
        (unit, "mean-activation", "words.safetensors") for unit in ("head", "neuron")
    ]
    assert json.loads((experiment.run_folder / "export/experts-all/config.json").read_text())["mlp_bias"]
    assert f"best is {best['chosen']['variant']}: of 2 lists" in page
    for place in ("report.html", "summary.csv", "export/experts-all/README.md"):
        assert "toxi" not in re.sub(
            r"<details>.*</details>", "", (experiment.run_folder / place).read_text(), flags=re.DOTALL
        )


def test_another_workflow_can_import_this_one(make_experiment):
    experiment = make_experiment()
    experiment.command()  # writes experiment.yaml
    (experiment.folder / "workflow").mkdir()
    (experiment.folder / "workflow/Snakefile").write_text(
        'configfile: "experiment.yaml"\n\n\n'
        f"module excise:\n    snakefile:\n        {str(REPOSITORY / 'Snakefile')!r}\n    config:\n        config\n\n\n"
        "use rule * from excise as excise_*\n"
    )
    result = subprocess.run(
        [Path(sys.executable).parent / "snakemake", "--cores", "1", "--dry-run"],
        cwd=experiment.folder, env=experiment.environment(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert planned(result.stdout) == {f"excise_{rule}": count for rule, count in PLANNED.items()}


def test_what_is_generated_in_shards_is_scored_in_shards(make_experiment):
    """Each scoring job asks for its part of the time."""
    experiment = make_experiment()
    del experiment.config["references"]["toxic"]["span"]  # so that the generations are all that scoring reads
    generations = experiment.run_folder / "generations/seed-0/generations.jsonl"
    generations.parent.mkdir(parents=True)
    generations.write_text("{}\n" * 24000)
    scorer = experiment.folder / "inputs/scorers/python%3Atiny_scorer%3Ascores.json"  # else its size is not known
    scorer.parent.mkdir(parents=True)
    scorer.write_text("{}\n")
    expected = {rule: count for rule, count in PLANNED.items() if rule != "fetch_scorer"}
    sharded = {
        "generate_references": 6, "score_references": 6, "merge_reference_generations": 2, "merge_reference_scores": 2,
        "generate": 8, "score": 8, "merge_generations": 4, "merge_scores": 4,
    }  # fmt: skip
    for shards, jobs, minutes in ((1, {}, 140), (3, sharded, 60)):
        experiment.config["generations"]["shards"] = shards
        experiment.config["evaluation"]["shards"] = min(shards, 2)
        plan = experiment.snakemake("--dry-run").stdout
        assert planned(plan) == expected | jobs
        asked = re.findall(r"rule score_references:(?:\n    .+)*?, seed=0.*\n    resources: .*runtime=(\d+)", plan)
        assert asked == [str(minutes)] * shards


def test_a_second_start_beside_a_running_one_is_refused(make_experiment):
    experiment = make_experiment()
    process = subprocess.Popen(
        experiment.command(), cwd=experiment.folder, env=experiment.environment(),
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        time.sleep(1)
        result = experiment.snakemake("--dry-run", program="start")
        assert result.returncode != 0
        assert "another Snakemake is running in this folder" in result.stderr
    finally:
        process.terminate()
        process.wait()
