"""What happens to jobs that wait in the queue of a real Slurm, and what they take along from the shell."""

import pytest

from tests.slurm.cluster import NODES, until
from tests.slurm.test_faults import SCORE, check

pytestmark = pytest.mark.slow


def test_drained_nodes_a_held_job_and_one_cancelled_while_it_waits(scoring, undisturbed):
    """All of it at once: a second start of the work is the one that was cancelled, and nothing else."""
    nodes = ",".join(NODES)
    scoring.cluster.ask("scontrol", "update", f"NodeName={nodes}", "State=DRAIN", "Reason=test")
    try:
        # As after `module load`: what the shell has, the job has.
        process = scoring.start(*SCORE, environment={"LOADEDMODULES": "cuda/12.4"})

        def ours():
            return [job for job in scoring.cluster.jobs() if str(scoring.folder) in job["folder"]]

        until(lambda: len(ours()) == 2, "both jobs to wait", seconds=120)
        held, cancelled = (job["id"] for job in ours())
        scoring.cluster.ask("scontrol", "hold", held)
        scoring.cluster.ask("scancel", cancelled)
        until(lambda: f"does not start job {held}" in scoring.messages(), "the held job to be told of", seconds=120)
        until(lambda: len(ours()) == 2, "the cancelled job to be submitted again", seconds=120)
        assert cancelled not in {job["id"] for job in ours()}
        scoring.cluster.ask("scontrol", "release", held)
    finally:
        scoring.cluster.ask("scontrol", "update", f"NodeName={nodes}", "State=RESUME")
    scoring.finish(process)
    check(scoring, undisturbed, started=2)
    assert scoring.memory() == ["2000M", "4000M"]  # a cancelled job counts as one that failed
    assert {line.split()[4] for line in (scoring.faults / "ledger").read_text().splitlines()} == {"cuda/12.4"}


def test_a_job_that_began_ends_without_a_controller(scoring, undisturbed):
    """The controller is gone from the moment when the jobs begin to the end of their work; nothing in them asks for it."""
    hold = scoring.order("hold")
    process = scoring.start(*SCORE)
    until(lambda: [job["state"] for job in scoring.cluster.jobs()].count("RUNNING") == 2, "both to start", seconds=120)
    scoring.cluster.stop_daemon("slurmctld")
    try:
        scoring.until_started(2)
        hold.unlink()
        until(lambda: len(scoring.ledger("end")) == 2, "both to end", seconds=120)
    finally:
        scoring.cluster.start_controller()
    scoring.finish(process)
    check(scoring, undisturbed, started=2)
    assert scoring.memory() == ["2000M", "2000M"]  # no attempt was lost
