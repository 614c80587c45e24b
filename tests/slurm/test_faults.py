"""What goes wrong on a cluster, tried on a real Slurm: the run ends right, and nothing is done twice."""

import signal

import pytest

from tests.slurm.cluster import until

pytestmark = pytest.mark.slow

SCORE = ("--until", "score_responses")


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


def test_killed_and_started_again_waits_for_the_running_jobs(scoring, undisturbed):
    """The second run submits nothing; what the orphans wrote has metadata, so that a changed parameter is noticed."""
    hold = scoring.order("hold")
    process = scoring.start(*SCORE)
    jobs = {job for _, job in scoring.until_started(2)}
    scoring.kill(process)
    again = scoring.start(*SCORE)
    until(lambda: "Waiting for 2 jobs that an earlier run left" in scoring.messages(), "the message", seconds=60)
    hold.unlink()
    messages = scoring.finish(again)
    check(scoring, undisturbed, started=2)
    assert {job["id"] for job in scoring.cluster.jobs("all")} >= jobs
    assert "Removing the lock of a run that was killed" in messages
    assert "rule_score_responses_wildcards_tiny_0" in messages
    scoring.experiment.config["responses"]["scorer"] = "python:tiny_scorer:scores"
    plan = scoring.run(*SCORE, "--dry-run")
    assert "score_responses        2" in plan.replace("\t", " ") or "Params have changed" in plan


def test_ctrl_c_cancels_all_jobs(scoring):
    scoring.order("hold")
    process = scoring.start(*SCORE)
    jobs = {job for _, job in scoring.until_started(2)}
    scoring.kill(process, signal.SIGINT)  # the group and its parent forward it: Snakemake gets it twice
    until(lambda: not jobs & {job["id"] for job in scoring.cluster.jobs()}, "the jobs to be cancelled", seconds=20)
    assert process.returncode != 0


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


def test_a_lost_node_costs_one_retry(scoring, undisturbed):
    hold = scoring.order("hold")
    process = scoring.start(*SCORE)
    started = scoring.until_started(2)
    nodes = {job["id"]: job["node"] for job in scoring.cluster.jobs()}
    lost = nodes[started[0][1]]
    victims = [job for _, job in started if nodes[job] == lost]
    scoring.cluster.lose_node(lost)
    try:
        scoring.until_started(2 + len(victims))
        hold.unlink()
        scoring.finish(process)
    finally:
        scoring.cluster.start_node(lost)
    until(lambda: scoring.cluster.idle() == 3, "the node to come back", seconds=60)
    check(scoring, undisturbed, started=2 + len(victims))


def test_snakemake_inside_a_slurm_job_submits_as_from_outside(scoring, undisturbed):
    around = {"SLURM_JOB_ID": "1", "SLURM_MEM_PER_NODE": "100", "SLURM_CPUS_PER_TASK": "64", "SLURM_NTASKS": "8",
              "SBATCH_PARTITION": "nowhere", "SBATCH_TIMELIMIT": "0:01", "SRUN_DEBUG": "9"}  # fmt: skip
    messages = scoring.run(*SCORE, environment=around)
    check(scoring, undisturbed, started=2)
    assert "nowhere" not in messages
