"""Experiments that go through a real Slurm; without one these tests are left out, loudly (``tests/conftest.py``)."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import REPOSITORY
from tests.slurm.cluster import Cluster, until
from tests.workflow.conftest import Experiment, make_experiment

__all__ = ["make_experiment"]

PATHS = os.pathsep.join(str(REPOSITORY / folder) for folder in ("src", "", "tests/workflow", "tests/slurm"))
"""Where jobs find the package and the scorers of the tests."""

PROGRAM = str(Path(sys.executable).parent / "snakemake")


@pytest.fixture(scope="module")
def cluster(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A Slurm of the module's own; with accounting where the module says so."""
    found = Cluster(tmp_path_factory.mktemp("slurm"), accounting=getattr(request.module, "ACCOUNTING", False))
    try:
        found.start()
        yield found
    finally:
        found.stop()


@dataclass
class Run:
    """A working directory whose jobs go to Slurm, with faults to order and a ledger to read."""

    experiment: Experiment
    cluster: Cluster
    site: dict[str, Any] | None = None

    @property
    def folder(self) -> Path:
        return self.experiment.folder

    @property
    def faults(self) -> Path:
        return self.folder.parent / "faults"

    def environment(self) -> dict[str, str]:
        """As a user's shell on a login node, but quick: short pauses between looks at the queue."""
        site = self.folder.parent / "site.yaml"
        site.write_text(yaml.safe_dump(self.site or {"gpu": {"slurm_partition": "gpu"}}))
        environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_HUB")}
        return environment | {
            "PYTHONPATH": PATHS,
            "OMP_NUM_THREADS": "1",
            "EXCISE_FAULTS": str(self.faults),
            "EXCISE_SLURM_PAUSE": "1",
            "EXCISE_SLURM_SITE": str(site),
        }

    def command(self, *arguments: str, program: str = "snakemake", profile: str = "--profile") -> list[str]:
        """The command line; test settings shorten waits and nothing else."""
        (self.folder / "experiment.yaml").write_text(yaml.safe_dump(self.experiment.config, allow_unicode=True))
        start = [PROGRAM] if program == "snakemake" else [sys.executable, str(REPOSITORY / "workflow/scripts/start.py")]
        return [
            *start, "--snakefile", str(REPOSITORY / "Snakefile"), "--configfile", "experiment.yaml",
            profile, str(REPOSITORY / "profiles/slurm"),
            "--excise-slurm-init-seconds-before-status-checks", "1", "--latency-wait", "20", *arguments,
        ]  # fmt: skip

    def start(
        self,
        *arguments: str,
        environment: dict[str, str] | None = None,
        around: Sequence[str] = (),
        **options: str,
    ) -> subprocess.Popen[str]:
        """Start the run, by the command ``around`` it; its messages go to ``messages``. It is killed when it hangs."""
        self.faults.mkdir(exist_ok=True)
        command = self.command(*arguments, **options)
        with open(self.folder.parent / "messages", "a") as messages:
            return subprocess.Popen(  # HUP ends it even where nohup started the tests
                ["env", "--default-signal=HUP", "timeout", "--foreground", "-k", "5", "400", *around, *command], cwd=self.folder,
                env=self.environment() | (environment or {}), stdout=messages, stderr=messages, start_new_session=True, text=True,
            )  # fmt: skip

    def finish(self, process: subprocess.Popen[str], *, fails: bool = False) -> str:
        """Wait for the end; returns all messages so far."""
        process.wait()
        messages = self.messages()
        assert (process.returncode != 0) == fails, messages[-8000:]
        return messages

    def run(self, *arguments: str, fails: bool = False, **options: Any) -> str:
        """Run to the end."""
        return self.finish(self.start(*arguments, **options), fails=fails)

    def messages(self) -> str:
        return (self.folder.parent / "messages").read_text()

    def order(self, fault: str) -> Path:
        """Order a fault of the scorer."""
        self.faults.mkdir(exist_ok=True)
        (self.faults / fault).touch()
        return self.faults / fault

    def ledger(self, event: str = "start") -> list[tuple[str, str]]:
        """Lines of the ledger with this event: work and job."""
        path = self.faults / "ledger"
        lines = [line.split() for line in path.read_text().splitlines()] if path.exists() else []
        return [(work, job) for work, job, kind, *_ in lines if kind == event]

    def memory(self) -> list[str]:
        """Memory that the jobs of the ledger asked for, sorted."""
        asked = {job["id"]: job["memory"] for job in self.cluster.jobs("all")}
        return sorted(asked[job] for _, job in self.ledger())

    def until_started(self, number: int = 1) -> list[tuple[str, str]]:
        """Wait until this many jobs are in the middle of their work."""
        return until(lambda: len(found := self.ledger()) >= number and found, f"{number} jobs to start", seconds=120)

    def kill(self, process: subprocess.Popen[str], number: int = signal.SIGKILL) -> None:
        """Send a signal to the launcher and all its local processes."""
        os.killpg(process.pid, number)
        process.wait()


@pytest.fixture(scope="session")
def prepared(make_experiment: Callable[[], Experiment]) -> Experiment:
    """An experiment whose responses exist; two jobs, one a seed, score them with ``faulty_scorer``. Do not change it."""
    experiment = make_experiment()
    experiment.config["generations"]["scorer"] = "python:faulty_scorer:scores"
    del experiment.config["references"]["toxic"][
        "span"
    ]  # where each job calls the scorer once, the ledger has one line
    run_locally(experiment, "--until", "generate_references")
    return experiment


@pytest.fixture(scope="session")
def undisturbed(prepared: Experiment) -> dict[str, bytes]:
    """What scoring writes when nothing goes wrong and nothing is submitted."""
    experiment = Experiment(copy(prepared), prepared.config)
    run_locally(experiment, "--until", "score_references")
    return experiment.artefacts()


def run_locally(experiment: Experiment, *arguments: str) -> None:
    """Run on this machine, without Slurm."""
    faults = experiment.folder.parent / "faults"
    faults.mkdir(exist_ok=True)
    environment = experiment.environment() | {"PYTHONPATH": PATHS, "EXCISE_FAULTS": str(faults)}
    result = subprocess.run(
        experiment.command(*arguments),
        cwd=experiment.folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-6000:]


_copies = iter(range(1000))


def copy(experiment: Experiment) -> Path:
    """A copy of an experiment's folder, with Snakemake's records."""
    folder = experiment.folder.parent.parent / f"copy{next(_copies)}" / experiment.folder.name
    shutil.copytree(experiment.folder, folder, symlinks=True)
    return folder


@pytest.fixture
def scoring(prepared: Experiment, cluster: Cluster) -> Iterator[Run]:
    """A fresh copy of the prepared experiment."""
    run = Run(Experiment(copy(prepared), deepcopy(prepared.config)), cluster)
    yield run
    for job in cluster.jobs():
        cluster.ask("scancel", job["id"])
    until(lambda: not cluster.jobs(), "the test's jobs to end")
