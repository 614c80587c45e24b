"""The whole chain through a real Slurm, typed at the root of a clone."""

import os
import re
import shutil
import subprocess
import sys
from copy import deepcopy

import pytest
import yaml

from tests.conftest import REPOSITORY, clone_into
from tests.slurm.cluster import until
from tests.slurm.conftest import PROGRAM, Run, copy, run_locally
from tests.slurm.test_faults import SCORE, check
from tests.workflow.conftest import Experiment

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

JOBS = {
    "generate_references": 2, "score_references": 2, "attribute": 2, "average": 2, "generate": 4, "score": 4,
    "merge_reference_generations": 1, "merge_reference_scores": 1, "merge_generations": 2, "merge_scores": 2,
    "perplexity": 2, "fluency": 2, "evaluate": 2, "logit_lens": 1, "export": 1,
}  # fmt: skip
"""Jobs by rule that go through Slurm."""


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """The tracked files, and profiles/slurm/site.yaml written as docs/slurm.md says."""
    folder = clone_into(tmp_path_factory.mktemp("clone") / "excise")
    site = yaml.safe_load((folder / "profiles/slurm/site.example.yaml").read_text())
    assert set(site) == {"all", "cpu", "gpu"}
    site["gpu"] = {"slurm_partition": "gpu", "gpu_model": "a100"}
    (folder / "profiles/slurm/site.yaml").write_text(yaml.safe_dump(site))
    return folder


@pytest.fixture(scope="module")
def small(make_experiment):
    """One seed, one pruned variant; device auto, so that its model jobs ask for a GPU."""
    experiment = make_experiment()
    experiment.config |= {"seeds": [0], "device": "auto"}
    del experiment.config["attribution"]["minutes"]
    for section in ("generations", "evaluation"):
        experiment.config[section] |= {"num_generations": 6, "batch_size": 12}  # of 12 prompts: two batches to score
    del experiment.config["variants"]["random"]
    experiment.config["variants"]["lrp"]["count"] = [2]
    experiment.config["evaluation"]["scorers"] = ["python:faulty_scorer:scores"]
    return experiment


@pytest.fixture(scope="module")
def limited(prepared, undisturbed, cluster):
    """A run one of whose jobs will break its time limit: a minute and more, which passes while ``finished`` works."""
    run = Run(Experiment(copy(prepared), deepcopy(prepared.config)), cluster)
    fault = run.order("slow-once")
    process = run.start(*SCORE)
    run.until_started(2)
    until(lambda: not fault.exists() and len(run.ledger("end")) == 1, "one of two jobs to end")
    ended = {job for _, job in run.ledger("end")}
    (slow,) = {job for _, job in run.ledger()} - ended
    cluster.ask("scontrol", "update", f"JobId={slow}", "TimeLimit=1")
    return run, process


@pytest.fixture(scope="module")
def finished(limited, small, clone, cluster):
    """The experiment's run on one machine, and through Slurm in shards: artefacts, run, messages and jobs."""
    folder = clone
    for path in small.folder.iterdir():
        shutil.copy2(path, folder)
    run = Run(Experiment(folder, deepcopy(small.config)), cluster)
    environment = {name: value for name, value in run.environment().items() if name != "EXCISE_SLURM_SITE"}
    for section in ("generations", "evaluation"):
        run.experiment.config[section]["shards"] = 2
    run.faults.mkdir()
    run_locally(small)
    (folder / "experiment.yaml").write_text(yaml.safe_dump(run.experiment.config, allow_unicode=True))
    command = (
        f"{PROGRAM} --profile slurm --configfile experiment.yaml --excise-slurm-init-seconds-before-status-checks 1"
    )
    result = subprocess.run(
        ["timeout", "-k", "5", "900", *command.split()], cwd=folder, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-8000:]
    return small.artefacts(), run, result.stderr, cluster.jobs("all")


def test_slurm_writes_the_same_bytes_as_one_machine(finished):
    alone, run, _, _ = finished
    found = {name: data for name, data in run.experiment.artefacts().items() if "-shard-" not in name}
    assert len(alone) > 20
    differ = {name for name in found.keys() | alone.keys() if found.get(name) != alone.get(name)}
    assert {name.rpartition("/")[2] for name in differ} == {"settings.json"}  # which says into how many shards
    assert (run.experiment.run_folder / "report.html").is_file()


def test_each_rule_is_a_job_with_its_own_resources(finished):
    _, run, _, jobs = finished
    ours = [job for job in jobs if job["name"].startswith("excise_") and str(run.folder) in job["folder"]]
    assert {job["state"] for job in ours} == {"COMPLETED"}
    by_rule = {}
    for job in ours:
        by_rule.setdefault(re.match(r"rule_(.+?)_wildcards", job["comment"])[1], []).append(job)
    counts = {rule: len(found) for rule, found in by_rule.items()}
    assert counts == JOBS
    details = run.cluster.ask("scontrol", "show", "job", by_rule["attribute"][0]["id"]).stdout
    assert re.search(r"TresPerJob=gres[:/]gpu:a100:1\n", details)  # "gres:gpu" in Slurm 22.05
    on_gpu = {"generate_references", "attribute", "generate", "perplexity", "fluency"}
    for rule, found in by_rule.items():
        for job in found:
            assert job["partition"] == ("gpu" if rule in on_gpu else "cpu"), job
            assert int(job["memory"].rstrip("M")) >= 650, job


def test_jobs_run_offline_and_none_ran_twice(finished):
    _, run, _, _ = finished
    lines = [line.split() for line in (run.faults / "ledger").read_text().splitlines()]
    assert {offline for _, _, _, offline, _ in lines} == {"1"}
    works = [work for work, _ in run.ledger("start")]
    assert len(works) == len(set(works)) == JOBS["score"]


def test_logs_lie_where_a_person_looks(finished):
    _, run, _, _ = finished
    assert len(list((run.folder / "logs/slurm/rule_attribute").rglob("*.log"))) == 2
    assert (run.folder / "logs/slurm/rule_attribute/tiny_neuron_lrp_toxic_").is_dir()


def test_the_resource_report_says_what_was_asked_and_used(finished):
    _, run, _, _ = finished
    command = [sys.executable, REPOSITORY / "workflow/scripts/used.py"]
    table = subprocess.run(command, cwd=run.folder, capture_output=True, text=True, check=True).stdout
    rows = {line.split()[0]: [float(word) for word in line.split()[1:]] for line in table.splitlines()[1:-1]}
    assert {rule: row[0] for rule, row in rows.items()} == JOBS
    for _, asked_mb, used_mb, asked_min, used_min in rows.values():
        assert 0 < used_mb <= asked_mb
        assert 0 <= used_min < asked_min  # in tenths of a minute


def test_a_job_over_its_time_limit_is_retried_with_more(limited, undisturbed):
    run, process = limited
    messages = run.finish(process)
    check(run, undisturbed, started=3)
    assert "TIME LIMIT" in messages
    limits = {job["id"]: job["limit"] for job in run.cluster.jobs("all")}
    assert limits[run.ledger()[2][1]] == "40:00"


def test_both_ways_of_naming_the_profile_plan_the_same(finished):
    _, run, _, _ = finished
    plans = []
    for arguments in (["--profile", "profiles/slurm"], ["--workflow-profile", "profiles/slurm"]):
        command = [PROGRAM, *arguments, "--configfile", "experiment.yaml", "--dry-run", "--forceall"]
        result = subprocess.run(
            command, cwd=run.folder, env=os.environ | run.environment(), capture_output=True, text=True, check=True
        )
        plan = result.stdout.partition("Job stats:")[2]
        lines = [line for line in plan.splitlines() if not line.startswith("[")]
        lines = [re.sub(r"jobid: \d+", "", ", ".join(sorted(re.split(r"[ ,]+", line)))) for line in lines]
        plans.append(sorted(lines))
    assert plans[0] == plans[1]
    assert any("excise" in line and "attribute" in line for line in plans[0])


@pytest.mark.parametrize(("device", "memory", "gpus"), [("cpu", 80000, 0), ("auto", 0.2, 1), ("spread", 0.2, 3)])
def test_a_job_asks_for_the_gpus_that_its_model_needs(cluster, prepared, device, memory, gpus):
    """None on CPUs; several only where the model is to be spread over them."""
    run = Run(Experiment(copy(prepared), prepared.config | {"device": device}), cluster)
    run.site = {"gpu_memory_mb": memory}
    plan = run.run("--dry-run", "--forcerun", "generate_references", "--until", "generate_references")
    asked = re.findall(r"resources: (.*mem_mb=.*)", plan)
    assert len(asked) == 2
    assert {int((re.search(r"gpu=(\d+)", line) or [0, 0])[1]) for line in asked} == {gpus}


TABLE = {
    "cpu": {"max_runtime": "1h", "max_mem_mb": 16000, "max_threads": 4},
    "gpu": {"max_runtime": "1h", "max_mem_mb": 16000, "max_threads": 4, "max_gpu": 2, "available_gpu_models": ["a100"]},
}


@pytest.mark.parametrize(
    ("busy", "site"),
    [("--nodes=2 --gpus-per-node=2", {"gpu": {"slurm_partition": "gpu"}}), ("--nodes=2 --gpus-per-node=1", {"partitions": TABLE})],
    ids=["all are busy, partition named", "one of each node is free, partition from a table"],
)  # fmt: skip
def test_a_job_waits_for_gpus_of_one_node(cluster, prepared, busy, site):
    """The job is pending, not failed, and runs when a node has the two GPUs that its spread model needs."""
    run = Run(Experiment(copy(prepared), prepared.config | {"device": "spread", "seeds": [0]}), cluster)
    run.site = site | {"gpu_memory_mb": 0.3}
    wait = ["sbatch", "--parsable", "-p", "gpu", *busy.split(), "-o", "/dev/null", "--wrap", "sleep 600"]
    other = cluster.ask(*wait).stdout.strip()
    until(
        lambda: any(job["id"] == other and job["state"] == "RUNNING" for job in cluster.jobs()), "the GPUs to be busy"
    )
    process = run.start("--until", "generate_references")

    def ours():
        return next((job for job in cluster.jobs("all") if str(run.folder) in job["folder"]), {"reason": "none"})

    until(lambda: ours()["reason"] == "Resources", "the job to be submitted and to wait", seconds=120)
    cluster.ask("scancel", other)
    run.finish(process)
    assert re.search(r"TresPerJob=gres[:/]gpu:2\n", cluster.ask("scontrol", "show", "job", ours()["id"]).stdout)
    assert ours()["node"] in ("g1", "g2")
    assert (run.experiment.run_folder / "generations/seed-0/generations.jsonl").is_file()
