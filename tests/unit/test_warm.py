"""Stages forked from a process with torch imported: the same bytes, words and statuses as without."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import pytest

from excise import warm
from tests.conftest import REPOSITORY

EXCISE = [str(Path(sys.executable).parent / "excise")]


@pytest.fixture(scope="module")
def owner():
    """A process that runs on, as Snakemake does while its jobs run, and the environment that it gives them."""
    with tempfile.TemporaryDirectory(prefix="excise-") as folder, subprocess.Popen(["sleep", "1000"]) as process:
        yield process, os.environ | {warm.VARIABLE: f"{process.pid}:{folder}"}
        process.kill()


def listeners(owner):
    return [
        process
        for process in psutil.process_iter(["cmdline"])
        if str(owner[0].pid) in (process.info["cmdline"] or []) and warm.__file__ in process.info["cmdline"]
    ]


@pytest.fixture(scope="module")
def stage(owner, tiny_model, tmp_path_factory):
    """Runs ``excise perplexity``, in a folder of its own; warm or not."""
    folder = tmp_path_factory.mktemp("stage")
    (folder / "text.jsonl").write_text('{"text": "' + "the cat sat on a mat and looked at rain " * 9 + '"}\n')

    def run(output, *more, warmed=True):
        command = [*EXCISE, "perplexity", "--model", tiny_model, "--text", "text.jsonl", "--device", "cpu"]
        return subprocess.run(
            [*command, "--seqlen", "16", "--output", output, *more],
            cwd=folder, env=owner[1] if warmed else os.environ, capture_output=True, text=True, check=False,
        )  # fmt: skip

    return folder, run


def test_a_fork_writes_the_same_bytes_and_says_the_same(stage, owner):
    folder, run = stage
    results = [run("cold.json", warmed=False), run("warm.json"), run("again.json")]
    assert [result.returncode for result in results] == [0, 0, 0], results[1].stderr
    written = [(folder / f"{name}.json").read_bytes() for name in ("cold", "warm", "again")]
    assert written[0] == written[1] == written[2]
    assert len(listeners(owner)) == 1
    assert {result.stderr.count("excise perplexity: ") for result in results} == {
        results[0].stderr.count("excise perplexity: ")
    }


def test_an_error_comes_through_with_its_status(stage):
    _, run = stage
    result = run("none.json", "--protocol", "windows", "--windows", "1000")
    assert result.returncode == 1
    assert "excise perplexity: error: " in result.stderr


def test_whoever_kills_the_command_kills_the_stage(stage, owner, tmp_path):
    """The stage waits for somebody to write into its text, which nobody does."""
    os.mkfifo(tmp_path / "text")
    command = [*EXCISE, "perplexity", "--model", tmp_path, "--text", tmp_path / "text", "--output", tmp_path / "out"]
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    if not listeners(owner):  # no test before this one has started it
        stage[1]("first.json")
    (listener,) = listeners(owner)
    until(lambda: not listener.children())  # the stages of earlier tests are gone
    with subprocess.Popen(command, env=owner[1], stderr=subprocess.DEVNULL) as process:
        try:
            until(lambda: listener.children() or process.poll() is not None)
            (fork,) = listener.children()
        finally:
            process.send_signal(signal.SIGKILL)
        until(lambda: not fork.is_running())


def test_another_environment_is_another_process(stage, owner):
    """Numerical libraries read the number of threads while they are imported."""
    _, run = stage
    owner[1]["OMP_NUM_THREADS"] = "2"
    assert run("two.json").returncode == 0
    assert len(listeners(owner)) == 2


def test_where_no_process_can_be_had_the_stage_runs_by_itself(stage, owner, monkeypatch):
    _, run = stage
    monkeypatch.setitem(owner[1], warm.VARIABLE, f"{owner[0].pid}:/no/such/folder")
    assert run("alone.json").returncode == 0


def test_no_process_outlives_the_run(owner):
    found = listeners(owner)
    assert found
    owner[0].kill()
    owner[0].wait()
    until(lambda: not any(process.is_running() for process in found))


def until(done):
    """Wait for it."""
    deadline = time.monotonic() + 60
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_nothing_of_the_package_is_imported_before_the_fork():
    """So that a stage runs the code that is on disk."""
    code = f"import sys; sys.argv = ['', '1', '0']; import runpy; runpy.run_path({warm.__file__!r}); print([n for n in sys.modules if 'excise' in n])"
    found = subprocess.run(
        [sys.executable, "-P", "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True
    ).stdout
    assert found.strip() == "[]"
