"""What goes wrong on a cluster, tried on a real Slurm: the run ends right, and nothing is done twice."""

import os
import signal
from copy import deepcopy

import pytest

from tests.slurm.cluster import NODES, until
from tests.slurm.conftest import Run, copy, run_locally
from tests.slurm.disks import Late, full_disk
from tests.workflow.conftest import Experiment

pytestmark = pytest.mark.slow

SCORE = ("--until", "score_references")


def check(run, undisturbed, started):
    """The same bytes as an undisturbed run, and so many starts; each work ended once."""
    assert run.experiment.artefacts() == undisturbed
    assert len(run.ledger("start")) == started, run.ledger()
    ended = [work for work, _ in run.ledger("end")]
    assert len(ended) == len(set(ended)) == 2, run.ledger("end")


def test_a_job_that_fails_once_is_retried_with_more_memory(scoring, undisturbed):
    scoring.order("exit-once")
    messages = scoring.run(*SCORE)
    check(scoring, undisturbed, started=3)
    assert scoring.memory() == ["2000M", "2000M", "4000M"]
    assert "a fault that a test asked for" in messages  # the reason is on the screen


def test_a_job_over_its_memory_limit_is_retried_with_more(scoring, undisturbed):
    scoring.order("memory-once")
    messages = scoring.run(*SCORE)
    check(scoring, undisturbed, started=3)
    assert scoring.memory() == ["2000M", "2000M", "4000M"]
    assert "memory limit" in messages.lower()


def test_a_job_cancelled_by_somebody_else_is_retried(scoring, undisturbed):
    hold = scoring.order("hold")
    process = scoring.start(*SCORE)
    started = scoring.until_started(2)
    scoring.cluster.ask("scancel", started[0][1])
    scoring.until_started(3)
    hold.unlink()
    scoring.finish(process)
    check(scoring, undisturbed, started=3)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGHUP], ids=["killed", "terminal closed"])
def test_killed_and_started_again_waits_for_the_running_jobs(scoring, undisturbed, number):
    """The second run submits nothing; what the orphans wrote has metadata, so that a changed parameter is noticed."""
    hold = scoring.order("hold")
    process = scoring.start(*SCORE)
    jobs = {job for _, job in scoring.until_started(2)}
    scoring.kill(process, number)
    again = scoring.start(*SCORE)
    until(lambda: "Waiting for 2 jobs that an earlier run left" in scoring.messages(), "the message", seconds=60)
    hold.unlink()
    messages = scoring.finish(again)
    check(scoring, undisturbed, started=2)
    assert {job["id"] for job in scoring.cluster.jobs("all")} >= jobs
    assert "rule_score_references_wildcards_tiny_0" in messages
    scoring.experiment.config["generations"]["scorer"] = "python:tiny_scorer:scores"
    plan = scoring.run(*SCORE, "--dry-run")
    assert "score_references        2" in plan.replace("\t", " ") or "Params have changed" in plan


def test_ctrl_c_cancels_all_jobs_and_a_second_start_is_refused(scoring):
    scoring.order("hold")
    process = scoring.start(*SCORE)
    jobs = {job for _, job in scoring.until_started(2)}
    scoring.run(*SCORE, fails=True)
    assert "another Snakemake works in this folder" in scoring.messages()
    scoring.kill(process, signal.SIGINT)  # the group and its parent forward it: Snakemake gets it twice
    until(lambda: not jobs & {job["id"] for job in scoring.cluster.jobs()}, "the jobs to be cancelled", seconds=20)
    assert process.returncode != 0
    assert len(scoring.ledger()) == 2


def test_a_controller_that_restarts_is_no_news(scoring, undisturbed):
    """Without accounting: stopped while jobs run, and while one is to be submitted."""
    hold = scoring.order("hold")
    process = scoring.start(*SCORE, "--jobs", "1")
    scoring.until_started(1)
    scoring.cluster.stop_daemon("slurmctld")
    until(lambda: "Slurm does not answer" in scoring.messages(), "a failed query", seconds=60)
    hold.unlink()
    until(lambda: len(scoring.ledger("end")) == 1, "the first job to end while no controller listens")
    scoring.cluster.start_controller()
    scoring.finish(process)
    check(scoring, undisturbed, started=2)


def test_no_attempt_is_lost_while_no_controller_takes_jobs(scoring, undisturbed):
    """The controller is gone when the jobs are submitted."""
    scoring.cluster.stop_daemon("slurmctld")
    try:
        process = scoring.start(*SCORE)
        until(lambda: "is submitted again" in scoring.messages(), "the submission to fail", seconds=200)
    finally:
        scoring.cluster.start_controller()
    scoring.finish(process)
    check(scoring, undisturbed, started=2)
    assert scoring.memory() == ["2000M", "2000M"]


def test_a_job_that_sbatch_refuses_is_not_submitted_again(scoring):
    scoring.site = {"cpu": {"constraint": "nowhere"}}
    messages = scoring.run(*SCORE, fails=True)
    assert "Invalid feature specification" in messages
    assert "Trying to restart" not in messages
    assert not scoring.ledger()


@pytest.mark.parametrize("survives", [False, True], ids=["all of it", "the job's process goes on"])
def test_a_lost_node_costs_one_retry(scoring, undisturbed, survives):
    """Where the old process lives on, unseen by Slurm, it ends beside the retry and writes the same bytes."""
    hold = scoring.order("hold")
    process = scoring.start(*SCORE)
    started = scoring.until_started(2)
    nodes = {job["id"]: job["node"] for job in scoring.cluster.jobs()}
    lost = nodes[started[0][1]]
    victims = [job for _, job in started if nodes[job] == lost]
    scoring.cluster.lose_node(lost, daemon_only=survives)
    try:
        scoring.until_started(2 + len(victims))
        hold.unlink()
        scoring.finish(process)
        ends = 2 + len(victims) * survives
        until(lambda: len(scoring.ledger("end")) == ends, "the old process to end")
    finally:
        scoring.cluster.start_node(lost)
    until(lambda: scoring.cluster.idle() == len(NODES), "the node to come back", seconds=60)
    assert scoring.experiment.artefacts() == undisturbed
    assert len(scoring.ledger("start")) == 2 + len(victims)


def test_snakemake_inside_a_slurm_job_submits_as_from_outside(scoring, undisturbed):
    """What the surrounding job was given is forgotten; the partition that the shell names is respected."""
    around = {"SLURM_JOB_ID": "1", "SLURM_MEM_PER_NODE": "100", "SLURM_CPUS_PER_TASK": "64", "SLURM_NTASKS": "8",
              "SBATCH_PARTITION": "gpu", "SBATCH_TIMELIMIT": "0:01", "SRUN_DEBUG": "9"}  # fmt: skip
    messages = scoring.run(*SCORE, environment=around)
    check(scoring, undisturbed, started=2)
    assert "Not used: SBATCH_TIMELIMIT" in messages
    ours = [job for job in scoring.cluster.jobs("all") if str(scoring.folder) in job["folder"]]
    assert {job["partition"] for job in ours} == {"gpu"}


def test_a_full_disk_is_named_and_the_run_goes_on_when_there_is_room(scoring, undisturbed):
    """Without retries the run ends with the reason; started again, its retries write the same bytes once they can."""
    with full_disk(scoring.folder / "results") as filler:
        messages = scoring.run(*SCORE, "--retries", "0", fails=True)
        assert "scores.jsonl: cannot be written (No space left on device)" in messages
        assert not list((scoring.folder / "results").rglob("*.tmp"))
        failed = len(scoring.ledger("end"))
        process = scoring.start(*SCORE)
        until(lambda: len(scoring.ledger("end")) == failed + 2, "both jobs to find the disk full", seconds=120)
        hold = scoring.order("hold")
        scoring.until_started(failed + 4)
        filler.unlink()
        hold.unlink()
        scoring.finish(process)
        assert scoring.experiment.artefacts() == undisturbed
        assert len(scoring.ledger()) == failed + 4


def test_files_that_appear_late_are_waited_for_and_nothing_runs_twice(cluster, prepared):
    """Job, local rule, jobs, local rule. A job starts some seconds after its input was written: files take longer to it."""
    alone, run = (Run(Experiment(copy(prepared), deepcopy(prepared.config)), cluster) for _ in range(2))
    target = str((run.experiment.run_folder / "statistics/neuron/lrp/toxic/seed-0.safetensors").relative_to(run.folder))
    run_locally(alone.experiment, target)
    with Late(run.folder / "results", to_login=6, to_nodes=25) as late:
        messages = run.finish(run.start(target, "--latency-wait", "60", around=late.around))
        until(lambda: run.experiment.artefacts() == alone.experiment.artefacts(), "all files to have arrived")
    ours = [job for job in cluster.jobs("all") if str(run.folder) in job["folder"]]
    assert sorted(job["comment"] for job in ours) == [
        "rule_attribute_wildcards_tiny_neuron_lrp_toxic_-shard-0",
        "rule_attribute_wildcards_tiny_neuron_lrp_toxic_-shard-1",
        "rule_score_references_wildcards_tiny_0",
        "rule_score_references_wildcards_tiny_1",  # the other seed's answers: enough of them, before any attribution
    ]
    assert {job["state"] for job in ours} == {"COMPLETED"}
    job_logs = "".join(path.read_text() for path in run.folder.glob("logs/slurm/rule_attribute/*/*.log"))
    for where in (messages, job_logs):
        assert "for missing files" in where  # both sides had to wait


def test_pending_jobs_run_what_was_planned_whatever_becomes_of_the_file(scoring, undisturbed):
    """Meanwhile no node takes jobs, which is said; the edited file is planned by the next run."""
    scoring.cluster.ask("scontrol", "update", "PartitionName=cpu", "MaxNodes=0")
    try:
        process = scoring.start(*SCORE)
        until(lambda: "PartitionNodeLimit" in scoring.messages(), "it to be said why the jobs wait", seconds=60)
        scoring.experiment.config["generations"]["scorer"] = "python:tiny_scorer:scores"
        scoring.command()  # which writes the file
    finally:
        scoring.cluster.ask("scontrol", "update", "PartitionName=cpu", "MaxNodes=INFINITE")
    scoring.finish(process)
    check(scoring, undisturbed, started=2)
    plan = scoring.run(*SCORE, "--dry-run")
    assert "score_references        2" in plan.replace("\t", " ") or "Params have changed" in plan


def test_a_preempted_job_is_submitted_again_as_it_was(scoring, undisturbed):
    """Jobs of a partition with precedence take the nodes, from jobs that Slurm would requeue and from others."""
    hold = scoring.order("hold")
    process = scoring.start(*SCORE)
    scoring.until_started(2)
    for number, mode in enumerate(("REQUEUE", "CANCEL"), 1):
        scoring.cluster.ask("scontrol", "update", "PartitionName=cpu", f"PreemptMode={mode}")
        scoring.cluster.ask(
            "sbatch", "-p", "urgent", "--nodes=2", "--exclusive", "-o", "/dev/null", "--wrap", "sleep 1"
        )
        scoring.until_started(2 + 2 * number)
    hold.unlink()
    messages = scoring.finish(process)
    scoring.cluster.ask("scontrol", "update", "PartitionName=cpu", "PreemptMode=REQUEUE")
    check(scoring, undisturbed, started=6)
    assert set(scoring.memory()) == {"2000M"}  # no attempt was lost
    assert messages.count("ended as PREEMPTED") == 4


def test_a_job_that_a_stalled_controller_took_is_not_submitted_again(scoring, undisturbed, tmp_path):
    """The controller stops during the first sbatch, which gives up; and nobody asks for more time than there is."""
    controller = scoring.cluster.daemons["slurmctld"].pid
    shim = tmp_path / "sbatch"
    shim.write_text(
        f'#!/bin/sh\nmkdir {tmp_path}/first 2>/dev/null || exec /usr/bin/sbatch "$@"\n'
        f'kill -STOP {controller}\n/usr/bin/sbatch "$@"\nstatus=$?\nkill -CONT {controller}\nexit $status\n'
    )
    shim.chmod(0o755)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    longer = ("--set-resources", "score_references:runtime=90")
    messages = scoring.run(*SCORE, *longer, environment=environment)
    assert "timed out" in messages
    assert "Slurm has job" in messages
    check(scoring, undisturbed, started=2)
    ours = [job for job in scoring.cluster.jobs("all") if str(scoring.folder) in job["folder"]]
    assert len(ours) == 2
    assert {job["limit"] for job in ours} == {"1:00:00"}
    assert "asks for 60 minutes, the most that partition cpu gives, not 90" in messages
