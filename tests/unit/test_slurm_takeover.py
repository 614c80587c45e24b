"""Whose folder and whose jobs these are: what a new run takes over from one that was killed."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from snakemake_executor_plugin_excise_slurm import takeover
from tests.unit.slurm import programs

__all__ = ["programs"]


@pytest.fixture
def parent():
    """What would be noted of the process that started the tests."""
    process = os.getppid()
    return {
        "host": os.uname().nodename,
        "boot": takeover._boot(),
        "process": process,
        "ticks": takeover._ticks(process),
    }


@pytest.mark.parametrize(
    ("change", "state"),
    [({}, True), ({"ticks": 1}, False), ({"process": 2**22 + 1}, False), ({"boot": "other"}, False), ({"host": "else"}, None)],
)  # fmt: skip
def test_who_works_in_a_folder(parent, change, state):
    assert takeover.lives(parent | change) is state


def test_what_an_older_version_noted_cannot_be_told(parent):
    assert takeover.lives({"host": parent["host"], "process": parent["process"], "started": 1.5}) is None


def test_a_process_that_waits_to_be_collected_does_not_live():
    process = subprocess.Popen(["true"])
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert takeover._ticks(process.pid) is None
    process.wait()


def test_names_of_earlier_runs_are_kept_until_their_jobs_have_ended(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert takeover.take_over() == []
    takeover.note(["one"])
    assert takeover.take_over() == ["one"]
    assert takeover.take_over() == ["one"]


@pytest.mark.parametrize("inside", [False, True])
def test_what_the_shell_says_of_whose_jobs_they_are_is_respected(monkeypatch, caplog, inside):
    for name in [name for name in os.environ if name.startswith(("SLURM_", "SBATCH_"))]:
        monkeypatch.delenv(name)
    given = {
        "SBATCH_ACCOUNT": "a",
        "SBATCH_QOS": "q",
        "SBATCH_PARTITION": "p",
        "SLURM_CONF": "c",
        "SLURM_TIME_FORMAT": "t",
    }
    given |= {"SBATCH_TIMELIMIT": "1", "SBATCH_WAIT": "1"} | (
        {"SLURM_JOB_ID": "1", "SRUN_DEBUG": "1"} if inside else {}
    )
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    takeover.clean_environment()
    kept = {name for name in given if name in os.environ}
    own = {"SBATCH_ACCOUNT", "SBATCH_QOS", "SBATCH_PARTITION", "SLURM_CONF"}
    assert kept == own | (set() if inside else {"SLURM_TIME_FORMAT"})
    assert "Not used: SBATCH_TIMELIMIT, SBATCH_WAIT" in caplog.text


def test_jobs_read_a_copy_of_the_settings(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    workflow = SimpleNamespace(config_settings=SimpleNamespace(configfiles=[Path("mine.yaml")]))
    one = takeover.freeze(workflow, json.dumps({"seed": 1}))
    assert workflow.config_settings.configfiles == [one]
    assert json.loads(one.read_text()) == {"seed": 1}
    assert (
        takeover.freeze(workflow, json.dumps({"seed": 2})) != one == takeover.freeze(workflow, json.dumps({"seed": 1}))
    )


SNAKEFILE = """\
rule one:
    output: "out"
    params: code="abc"
    shell: "echo {params.code} > {output}"
"""


@pytest.mark.parametrize("planned", [None, "same", "0123456789abcdef"])
def test_a_job_whose_code_changed_while_it_waited_does_not_run(tmp_path, planned):
    """On the node: the fingerprint of the job is compared with that of the plan."""
    from snakemake_executor_plugin_excise_job import fingerprint

    (tmp_path / "Snakefile").write_text(SNAKEFILE)
    same = fingerprint(
        SimpleNamespace(non_derived_params=["abc"], rule=SimpleNamespace(shellcmd="echo {params.code} > {output}"))
    )
    environment = os.environ | ({} if planned is None else {"EXCISE_PLANNED": same if planned == "same" else planned})
    command = [sys.executable, "-m", "snakemake", "--cores", "1", "--executor", "excise-job"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    refused = planned == "0123456789abcdef"
    assert (done.returncode != 0) == refused == (not (tmp_path / "out").exists()), done.stderr
    assert ("changed since this job was submitted" in done.stderr) == refused


def test_jobs_of_an_earlier_run_are_waited_for_while_they_may_write(programs):
    states = [
        "PENDING",
        "RUNNING",
        "COMPLETING",
        "SUSPENDED",
        "REQUEUED",
        "COMPLETED",
        "CANCELLED by 0",
        "PREEMPTED",
        "NODE_FAIL",
    ]
    lines = "; ".join(f'echo "{number}|{state}|None|rule_x"' for number, state in enumerate(states))
    folder = programs(squeue=f'echo "$@" > asked; {lines}')
    assert [job.id for job in takeover._orphans(["one", "two"])] == ["0", "1", "2", "3", "4"]
    assert "--name one,two --states all" in (folder / "asked").read_text()
