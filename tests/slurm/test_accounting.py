"""Faults of a cluster with accounting, asked through squeue as our profile does, and through sacct as the plugin would."""

import time

import pytest

from tests.slurm.cluster import until
from tests.slurm.test_faults import SCORE, check
from tests.slurm.test_site import forgetful

pytestmark = pytest.mark.slow

ACCOUNTING = True


@pytest.mark.parametrize("command", ["squeue", "sacct"])
def test_a_database_that_is_down_for_ten_seconds_is_no_news(scoring, undisturbed, command):
    hold = scoring.order("hold")
    process = scoring.start(*SCORE, "--excise-slurm-status-command", command)
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
    process = scoring.start(*SCORE, "--excise-slurm-status-command", "sacct")
    started = scoring.until_started(2)
    scoring.cluster.ask("scancel", started[0][1])
    scoring.until_started(3)
    hold.unlink()
    scoring.finish(process)
    check(scoring, undisturbed, started=3)


def test_jobs_beyond_the_limit_of_a_user_are_submitted_later(scoring, undisturbed):
    """One job at a time is allowed in the queue."""
    limit = ("sacctmgr", "-i", "modify", "user", "root", "set")
    scoring.cluster.ask(*limit, "MaxSubmitJobs=1")
    try:
        messages = scoring.run(*SCORE)
    finally:
        scoring.cluster.ask(*limit, "MaxSubmitJobs=-1")
    check(scoring, undisturbed, started=2)
    assert messages.count("The queue takes no more jobs now") == 1
    assert scoring.memory() == ["2000M", "2000M"]


def test_an_unknown_account_is_refused_once(scoring):
    scoring.site = {"all": {"slurm_account": "nowhere"}}
    messages = scoring.run(*SCORE, fails=True)
    assert "Invalid account" in messages
    assert "Trying to restart" not in messages
    assert not scoring.ledger()


def test_a_slurm_that_forgets_at_once_is_asked_by_sacct(scoring, undisturbed):
    with forgetful(scoring.cluster, 2):
        messages = scoring.run(*SCORE)
    check(scoring, undisturbed, started=2)
    assert "so sacct is asked instead" in messages
