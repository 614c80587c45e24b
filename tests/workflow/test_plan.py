"""What Snakemake plans, and what stops a plan; nothing is run here."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from tests.conftest import REPOSITORY
from tests.workflow.conftest import PLANNED, children_seconds, planned

pytestmark = pytest.mark.slow


def test_a_dry_run_plans_every_job_and_touches_nothing(make_experiment):
    experiment = make_experiment()
    before = sorted(experiment.folder.rglob("*"))
    start = children_seconds()
    result = experiment.snakemake("--dry-run")
    assert result.returncode == 0, result.stderr
    assert planned(result.stdout) == PLANNED
    assert children_seconds() - start < 5
    after = {path for path in experiment.folder.rglob("*") if ".snakemake" not in path.parts}
    assert after == {*before, experiment.folder / "experiment.yaml"}


def test_the_demo_and_every_experiment_can_be_planned(tmp_path):
    for path in (REPOSITORY / "config.yaml", *sorted((REPOSITORY / "experiments").glob("*.yaml"))):
        result = subprocess.run(
            [Path(sys.executable).parent / "snakemake", "--snakefile", REPOSITORY / "Snakefile", "--directory", tmp_path]
            + ([] if path.name == "config.yaml" else ["--configfile", path])
            + ["--dry-run"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert result.returncode == 0, (path, result.stderr[-3000:])
        jobs = planned(result.stdout)
        if path.name == "config.yaml":
            drawn = re.findall(r">(\w+)</text>", (REPOSITORY / "docs/rules.svg").read_text())
            assert sorted(drawn) == sorted(jobs), "draw docs/rules.svg again: docs/architecture.md says how"
        config = yaml.safe_load(path.read_text())
        used = {
            config.get("generations", {}).get("scorer", "detoxify-original"),
            *config.get("evaluation", {}).get("scorers", []),
        }
        used = used if "prompts" in config else set()
        assert jobs.get("fetch_scorer", 0) == sum(name.startswith(("detoxify", "hf:", "python:")) for name in used), (
            path
        )
        if "variants" not in config:
            continue
        variants = config["variants"].items()
        several = ("count", "patterns", "keep")
        sizes = {
            n: next((len(s[k]) for k in several if k in s), 1) * s.get("repeats", 1) * s.get("findings", 1)
            for n, s in variants
        }
        chosen = {s["choose"] for s in config["variants"].values() if "choose" in s}
        competing = sum(sizes[name] for name, s in config["variants"].items() if "choose" in s)
        judged = 1 + sum(sizes.values()) - competing + len(chosen)
        assert jobs["evaluate"] == (judged + competing + bool(chosen)) * len(config["models"]), path


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"varaints": {}}, "Did you mean 'variants'"),
        ({"seeds": "zero"}, "seeds: 'zero' is not a list"),
        ({"generations": {"scorer": "python:tiny_scorer:scoers"}}, "tiny_scorer.py: unknown function 'scoers'"),
        ({"generations": {"scorer": "python:no_module_of_that_name:f"}}, "there is no module 'no_module_of_that_name'"),
    ],
)
def test_a_wrong_configuration_stops_the_dry_run(make_experiment, change, message):
    experiment = make_experiment()
    experiment.config |= change
    result = experiment.snakemake("--dry-run")
    assert result.returncode != 0
    assert message in result.stderr + result.stdout


def test_a_missing_harness_stops_the_dry_run(make_experiment, tmp_path):
    experiment = make_experiment()
    experiment.config["evaluation"]["capability"] = {"tasks": ["hellaswag"]}
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['lm_eval'] = None\n")
    experiment.python_path.append(tmp_path)
    result = experiment.snakemake("--dry-run")
    assert result.returncode != 0
    assert "pip install 'excise[harness]'" in result.stderr + result.stdout


def test_torch_is_not_needed_to_plan(make_experiment, tmp_path):
    """A dry run succeeds where importing torch is an error."""
    experiment = make_experiment()
    (tmp_path / "torch.py").write_text("raise ImportError('torch was imported')")
    experiment.python_path.insert(0, tmp_path)
    result = subprocess.run(
        experiment.command("--dry-run"), cwd=experiment.folder, env=experiment.environment(), capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert torch.__name__ == "torch"


def test_several_models_share_their_inputs(make_experiment):
    experiment = make_experiment()
    experiment.config["models"]["second"] = experiment.config["models"]["tiny"]
    jobs = planned(experiment.snakemake("--dry-run").stdout)
    once = {"all", "settings", "fetch_text", "fetch_prompts", "fetch_scorer", "split_prompts"}
    assert jobs == {rule: count if rule in once else 2 * count for rule, count in PLANNED.items()}
