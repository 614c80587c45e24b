"""What the cures do with Slurm's answers; the same against a real Slurm is in tests/slurm."""

import asyncio
import socket
from importlib.metadata import version
from types import SimpleNamespace

import psutil
import pytest

from tests.conftest import REPOSITORY
from workflow.scripts import slurm_guard


def ask(answers, monkeypatch, *, expected, every=40.0):
    """The states after each answer, with the clock moved on between them."""
    clock = iter(range(1000))
    monkeypatch.setattr(slurm_guard, "time", SimpleNamespace(monotonic=lambda: next(clock) * every))
    monkeypatch.setattr(slurm_guard, "_expected", set(expected))
    monkeypatch.setattr(slurm_guard, "_missing_since", {})

    async def original(command, log):
        return answers.pop(0)

    query = slurm_guard._states(original)
    return [asyncio.run(query("squeue", None))[0] for _ in range(len(answers))]


def test_a_failed_query_is_no_news_and_states_are_one_word(monkeypatch):
    answers = [(None, None), ({"1": "CANCELLED by 0", "2": "RUNNING", "3": ""}, 0.1)]
    found = ask(answers, monkeypatch, expected=["1", "2", "3"])
    assert found == [{}, {"1": "CANCELLED", "2": "RUNNING", "3": ""}]


def test_a_job_that_slurm_forgot_has_ended_after_a_minute_of_answers(monkeypatch):
    answers = [({}, 0.1), ({}, 0.1), ({}, 0.1)]
    assert ask(answers, monkeypatch, expected=["7"]) == [{}, {}, {"7": "UNKNOWN"}]


def test_silence_does_not_count_as_forgetting(monkeypatch):
    answers = [({}, 0.1), (None, None), (None, None), ({}, 0.1), ({"7": "RUNNING"}, 0.1)]
    assert ask(answers, monkeypatch, expected=["7"]) == [{}, {}, {}, {}, {"7": "RUNNING"}]


def test_strings_are_quoted_for_the_shell():
    quoted = slurm_guard._quoted(lambda value, quote, base64_encode: repr(value))
    assert quoted('it\'s a "b" $x', quote=True) == "'it'\"'\"'s a \"b\" $x'"
    assert quoted("'quoted'", quote=True) == repr("'quoted'")


@pytest.mark.parametrize(
    ("change", "state"),
    [({}, True), ({"started": 1.0}, False), ({"process": 2**22 + 1}, False), ({"host": "else"}, None)],
)
def test_who_works_in_a_folder(change, state):
    parent = psutil.Process().parent()
    theirs = {"host": socket.gethostname(), "process": parent.pid, "started": parent.create_time()}
    assert slurm_guard.lives(theirs | change) is state


def test_names_of_earlier_runs_are_kept_until_their_jobs_have_ended(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert slurm_guard._take_over() == []
    slurm_guard._note(["one"])
    assert slurm_guard._take_over() == ["one"]
    assert slurm_guard._take_over() == ["one"]


def test_the_cures_are_for_the_plugin_that_is_installed():
    """A newer plugin: run tests/slurm without each cure, as slurm_guard.py says, and update both."""
    assert version("snakemake-executor-plugin-slurm") == "2.8.0"
    assert "snakemake-executor-plugin-slurm 2.8.0" in (REPOSITORY / "workflow/scripts/slurm_guard.py").read_text()


@pytest.mark.parametrize(
    "line",
    [
        "slurmstepd-c1: error: StepId=5.0 exceeded memory limit (2202173440 > 2097152000), being killed",
        "[2026-11-21T20:04:36.797] error: StepId=5.0 exceeded memory limit (2202173440 > 2097152000), being killed",
    ],
    ids=["22.05", "26.05"],
)
def test_why_a_job_was_killed_is_shown(tmp_path, line):
    log = tmp_path / "5.log"
    log.write_text("\n".join(["[Sat Nov 21 20:04:05 2026]", line, "Select jobs to execute...", *"123456"]))
    told = []
    report = slurm_guard._with_last_lines(lambda self, job, msg: told.append(msg))
    report(None, SimpleNamespace(aux={"slurm_logfile": log}), msg="failed")
    assert [text.strip() for text in told[0].splitlines()] == ["failed", "Last lines of its Slurm log:", line, ""]
