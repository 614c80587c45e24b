"""Faults of a cluster with accounting, asked through squeue as our profile does, and through sacct as the plugin would."""

import time

import pytest

from tests.slurm.cluster import until
from tests.slurm.test_faults import SCORE, check

pytestmark = pytest.mark.slow

ACCOUNTING = True


@pytest.mark.parametrize("command", ["squeue", "sacct"])
def test_a_database_that_is_down_for_ten_seconds_is_no_news(scoring, undisturbed, command):
    hold = scoring.order("hold")
    process = scoring.start(*SCORE, "--slurm-status-command", command)
    scoring.until_started(2)
    scoring.cluster.stop_daemon("slurmdbd")
    if command == "sacct":
        until(lambda: "Slurm does not answer" in scoring.messages(), "a failed query")
    time.sleep(10)
    hold.unlink()
    until(lambda: len(scoring.ledger("end")) == 2, "the jobs to end while the database is down")
    scoring.cluster.start_slurmdbd()
    scoring.finish(process)
    check(scoring, undisturbed, started=2)


def test_a_cancelled_job_is_seen_through_sacct(scoring, undisturbed):
    """sacct says "CANCELLED by 0"."""
    hold = scoring.order("hold")
    process = scoring.start(*SCORE, "--slurm-status-command", "sacct")
    started = scoring.until_started(2)
    scoring.cluster.ask("scancel", started[0][1])
    scoring.until_started(3)
    hold.unlink()
    scoring.finish(process)
    check(scoring, undisturbed, started=3)
