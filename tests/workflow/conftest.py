"""A whole experiment on a tiny model, in a folder whose name is as awkward as names get."""

import copy
import dataclasses
import json
import os
import random
import re
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from filelock import FileLock

from tests.conftest import REPOSITORY, WORDS

AWKWARD = 'it\'s a "tëst"'

PLANNED = {
    "all": 1,
    "attribute": 3,
    "average": 2,
    "control": 1,
    "contrast": 1,
    "evaluate": 4,
    "export": 1,
    "fetch_model": 1,
    "fetch_prompts": 1,
    "fetch_scorer": 1,
    "fetch_text": 1,
    "fluency": 4,
    "generate": 4,
    "inspect_model": 1,
    "logit_lens": 1,
    "merge": 2,
    "perplexity": 4,
    "reference_generations": 2,
    "reference_windows": 2,
    "report": 1,
    "generate_references": 2,
    "score": 4,
    "score_references": 2,
    "select": 3,
    "settings": 1,
    "split_prompts": 1,
    "summary": 1,
}
"""Jobs by rule of the tiny experiment: 2 seeds, toxic answers in two jobs, three variants and the baseline."""


@dataclass
class Experiment:
    """A working directory with a configuration, and a way to run Snakemake in it."""

    folder: Path
    config: dict[str, Any]
    python_path: list[Path] = field(default_factory=lambda: [Path(__file__).parent])
    repository: Path = REPOSITORY

    @property
    def run_folder(self) -> Path:
        """Where the results of its model lie."""
        return self.folder / "results" / self.config["experiment"] / "tiny"

    def environment(self) -> dict[str, str]:
        """Offline, and with the experiment's own scorer importable."""
        return os.environ | {
            "PYTHONPATH": os.pathsep.join(map(str, self.python_path)),
            "HF_HUB_OFFLINE": "1",
            "OMP_NUM_THREADS": "1",
        }

    def command(self, *arguments: str, program: str = "snakemake") -> list[str]:
        """The command line that a user would type."""
        (self.folder / "experiment.yaml").write_text(yaml.safe_dump(self.config, allow_unicode=True))
        start = [str(Path(sys.executable).parent / "snakemake")]
        if program == "start":
            start = [sys.executable, str(self.repository / "workflow/scripts/start.py")]
        options = ["--snakefile", str(self.repository / "Snakefile"), "--configfile", "experiment.yaml"]
        return [*start, *options, "--profile", str(self.repository / "profiles/local"), "--cores", "2", *arguments]

    def snakemake(self, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run Snakemake to its end."""
        return subprocess.run(
            self.command(*arguments, **options),
            cwd=self.folder,
            env=self.environment(),
            capture_output=True,
            text=True,
            check=False,
            timeout=580,
        )

    def artefacts(self) -> dict[str, bytes]:
        """Every result that must not differ between two runs: all but logs and the page that shows them."""
        root = self.folder / "results"
        skip = {"logs", "report.html", "report-data"}
        return {
            str(path.relative_to(root)): path.read_bytes()
            for path in sorted(root.rglob("*"))
            if path.is_file() and not skip & set(path.relative_to(root).parts)
        }


@pytest.fixture(scope="session")
def make_experiment(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Experiment]:
    """Make a fresh experiment; all of them have the same inputs."""

    def make() -> Experiment:
        folder = tmp_path_factory.mktemp("run") / AWKWARD
        folder.mkdir()
        generator = random.Random(0)
        sentences = [" ".join(generator.choices(WORDS, k=6)) for _ in range(24)]
        prompts = [{"id": f"p{i}", "text": text} for i, text in enumerate(sentences)]
        (folder / "prömpts 'x.jsonl").write_text("\n".join(json.dumps(prompt) for prompt in prompts))
        (folder / "a text.txt").write_text(" ".join(generator.choices(WORDS, k=1500)))
        config = {
            "experiment": AWKWARD,
            "device": "cpu",
            "seeds": [0, 1],
            "models": {"tiny": {"source": str(tiny_model)}},
            "texts": {"words": {"source": "a text.txt", "label": "Random wörds"}},
            "prompts": {"source": "prömpts 'x.jsonl", "label": "random prompts"},
            "generations": {"num_generations": 2, "max_new_tokens": 5, "scorer": "python:tiny_scorer:scores"},
            "references": {
                "toxic": {"kind": "generations", "at_least": 0.6, "span": "onset", "count": 6, "minimum": 2},
                "words": {"kind": "windows", "text": "words", "windows": 6, "seqlen": 12},
            },
            "attribution": {"batch_size": 2, "minutes": 1, "tokens_per_second": 10},
            "variants": {
                "lrp": {"method": "lrp", "retain": "words", "protect": 0.1, "count": [2, 4]},
                "random": {"method": "random", "count": [4]},
            },
            "evaluation": {
                "num_generations": 2,
                "max_new_tokens": 5,
                "scorers": ["python:tiny_scorer:scores"],
                "perplexity": {"text": "words", "seqlen": 16, "windows": 4},
                "resamples": 200,
            },
            "export": "lrp-2",
        }
        return Experiment(folder, config)

    return make


@pytest.fixture(scope="session")
def finished(make_experiment: Callable[[], Experiment], tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    """An experiment that ran to its end undisturbed, once for all processes that run tests; do not change it."""
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    record = shared / "finished.json"
    with FileLock(shared / "finished.lock"):
        if not record.exists():
            experiment = make_experiment()
            result = experiment.snakemake()
            assert result.returncode == 0, result.stderr[-6000:]
            record.write_text(json.dumps({"folder": str(experiment.folder), "config": experiment.config}))
    found = json.loads(record.read_text())
    return Experiment(Path(found["folder"]), found["config"])


def children_seconds():
    """Processor time of finished child processes: what they cost, however busy the machine is."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def planned(output):
    """Jobs by rule from the table that Snakemake prints."""
    table = output[output.index("Job stats:") :]
    rows = re.findall(r"^(\w+) +(\d+)$", table.split("\n\n")[0], re.MULTILINE)
    return {rule: int(count) for rule, count in rows if rule != "total"}


def copy_of(experiment, place):
    """The same, run so far, in a folder of its own."""
    shutil.copytree(experiment.folder, folder := place / experiment.folder.name)
    return dataclasses.replace(experiment, folder=folder, config=copy.deepcopy(experiment.config))
