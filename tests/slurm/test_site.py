"""What a site is like, on a real Slurm: GPUs asked for as gres, a short memory of ended jobs, a clock that is stepped."""

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.slurm.cluster import ETC, Cluster, until
from tests.slurm.conftest import Run, copy
from tests.slurm.test_faults import SCORE, check
from tests.workflow.conftest import Experiment

pytestmark = pytest.mark.slow


@contextlib.contextmanager
def forgetful(cluster: Cluster, seconds: int) -> Iterator[None]:
    """Have Slurm forget ended jobs so soon (MinJobAge)."""
    path = ETC / "slurm.conf"
    before = path.read_text()
    path.write_text(re.sub("MinJobAge=.*", f"MinJobAge={seconds}", before))
    cluster.ask("scontrol", "reconfigure")
    try:
        yield
    finally:
        path.write_text(before)
        cluster.ask("scontrol", "reconfigure")


def stepped(folder: Path, seconds: int) -> list[str]:
    """A command around another, for which the machine's clock was stepped: since then it started at another time."""
    text = Path("/proc/stat").read_text()
    fake = folder / f"stat{seconds:+d}"
    fake.write_text(re.sub(r"btime (\d+)", lambda found: f"btime {int(found[1]) + seconds}", text))
    return ["unshare", "--mount", "sh", "-c", 'mount --bind "$0" /proc/stat && exec "$@"', str(fake)]


@pytest.mark.parametrize(
    ("gres", "asked"), [("gpu:1", "gpu:2"), ("gpu:a100:1", "gpu:a100:2")], ids=["any GPU", "one model"]
)
def test_the_gres_of_a_site_grows_with_what_a_job_needs(cluster, prepared, gres, asked):
    run = Run(Experiment(copy(prepared), prepared.config | {"device": "spread", "seeds": [0]}), cluster)
    run.site = {"gpu": {"slurm_partition": "gpu", "gres": gres}, "gpu_memory_mb": 0.3}
    run.run("--until", "generate_references")
    (job,) = [job for job in cluster.jobs("all") if str(run.folder) in job["folder"]]
    assert job["state"] == "COMPLETED"
    assert re.search(rf"TresPerNode=gres[:/]{asked}\n", cluster.ask("scontrol", "show", "job", job["id"]).stdout)
    assert (run.experiment.run_folder / "generations/seed-0/generations.jsonl").is_file()


@pytest.mark.parametrize(
    ("text", "message"),
    [("all:\n\tqos: high\n", "has a tab"), ("all: {account: ours}\n", "Did you mean 'slurm_account'")],
)
def test_a_site_file_with_a_mistake_is_refused_before_any_job(scoring, tmp_path, text, message):
    path = tmp_path / "site.yaml"
    path.write_text(text)
    messages = scoring.run(*SCORE, fails=True, environment={"EXCISE_SLURM_SITE": str(path)})
    assert message in messages
    assert str(path) in messages
    assert not [job for job in scoring.cluster.jobs("all") if str(scoring.folder) in job["folder"]]


def test_a_stepped_clock_hides_nobody_who_works_here(scoring, undisturbed, tmp_path):
    """Neither the run that still works, nor, after it was killed, that it no longer does."""
    hold = scoring.order("hold")
    process = scoring.start(*SCORE)
    scoring.until_started(2)
    messages = scoring.run(*SCORE, fails=True, around=stepped(tmp_path, 3))
    assert "another Snakemake works in this folder" in messages
    scoring.kill(process)
    again = scoring.start(*SCORE, around=stepped(tmp_path, -3))
    until(lambda: "Waiting for 2 jobs that an earlier run left" in scoring.messages(), "the message", seconds=120)
    hold.unlink()
    scoring.finish(again)
    check(scoring, undisturbed, started=2)


def test_jobs_that_slurm_forgot_are_seen_from_their_outputs(scoring, undisturbed, tmp_path):
    """No accounting; squeue does not answer from before the jobs end until Slurm has forgotten them."""
    away = tmp_path / "away"
    shim = tmp_path / "squeue"
    shim.write_text(f'#!/bin/sh\n[ -e {away} ] && echo "Socket timed out" >&2 && exit 1\nexec /usr/bin/squeue "$@"\n')
    shim.chmod(0o755)
    hold = scoring.order("hold")
    with forgetful(scoring.cluster, 2):
        process = scoring.start(*SCORE, environment={"PATH": f"{tmp_path}:{os.environ['PATH']}"})
        jobs = [job for _, job in scoring.until_started(2)]
        away.touch()
        hold.unlink()

        def known() -> bool:
            return any(scoring.cluster.ask("scontrol", "show", "job", job).returncode == 0 for job in jobs)

        until(lambda: not known(), "Slurm to forget both jobs", seconds=150)
        away.unlink()
        messages = scoring.finish(process)
    check(scoring, undisturbed, started=2)
    assert "Slurm forgets ended jobs after 2 s" in messages
    assert messages.count("Slurm no longer lists job") == 2
