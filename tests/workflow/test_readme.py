"""The commands of the README, run as they stand there, in a copy of the repository with a tiny experiment."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.conftest import REPOSITORY, clone_into
from tests.workflow.conftest import Experiment, children_seconds

pytestmark = pytest.mark.slow

MAKE = ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")
BLOCKS = re.findall(r"```sh\n(.*?)```", (REPOSITORY / "README.md").read_text(), re.DOTALL)


@pytest.fixture(scope="module")
def clone(make_experiment, tmp_path_factory):
    """The tracked files, the environment of this test run, and a tiny experiment in place of the demo."""
    folder = clone_into(tmp_path_factory.mktemp("clone") / "excise")
    # The environment of this test run under the clone's name, but with a stamp of its own: nothing is installed again.
    (folder / ".venv").mkdir()
    for entry in Path(sys.prefix).iterdir():
        if entry.name not in (".installed", "pyvenv.cfg"):
            (folder / ".venv" / entry.name).symlink_to(entry)
    shutil.copy2(Path(sys.prefix) / "pyvenv.cfg", folder / ".venv")
    (folder / ".venv/.installed").touch()
    experiment = make_experiment()
    config = experiment.config | {"experiment": "demo"}
    del config["attribution"]["minutes"]
    (folder / "config.yaml").write_text(yaml.safe_dump(config, allow_unicode=True))
    (folder / "experiments").mkdir(exist_ok=True)
    for path in experiment.folder.iterdir():
        shutil.copy2(path, folder)
    # A user types `make demo` in a shell, not in the recipe of another make, whose sub-makes tell their directories.
    return folder, {key: value for key, value in experiment.environment().items() if key not in MAKE}


def run(clone, script):
    folder, environment = clone
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script], cwd=folder, env=environment, capture_output=True, text=True,
        check=False, timeout=580,
    )  # fmt: skip


def test_the_readme_has_the_commands_that_are_run_here():
    assert [line.partition("#")[0].strip() for line in BLOCKS[0].splitlines()] == ["make demo", "make test"]
    assert len(BLOCKS) == 2


def test_make_demo_ends_with_the_table_and_the_report_and_does_nothing_twice(clone):
    result = run(clone, "make demo")
    assert result.returncode == 0, result.stderr[-5000:]
    lines = result.stdout.splitlines()
    assert any(line.startswith("lrp-4") for line in lines)
    report = re.fullmatch(r"report: (.+)", lines[-1])
    assert report
    assert (clone[0] / report[1]).is_file()
    start = children_seconds()
    again = run(clone, "make demo")
    assert again.returncode == 0
    assert children_seconds() - start < 10
    assert "Nothing to be done" in again.stderr
    assert again.stdout.splitlines()[-1] == lines[-1]


def test_another_clone_gives_the_same_bytes_whatever_the_number_of_shards(clone, finished):
    """Of the run that ``make demo`` has made."""

    def by_place(experiment):
        return {name.partition("/")[2]: data for name, data in experiment.artefacts().items()}

    ours, theirs = by_place(Experiment(clone[0], {})), by_place(finished)
    assert ours.keys() == {name for name in theirs if "-shard-" not in name}
    compared = {name for name in ours if not name.endswith("settings.json")}
    assert len(compared) > 40
    different = [name for name in sorted(compared) if ours[name] != theirs[name]]
    assert not different


def test_the_commands_for_an_own_model_run(clone):
    result = run(clone, BLOCKS[1])
    assert result.returncode == 0, result.stderr[-5000:]


def test_make_test_runs_the_tests(clone):
    result = run(clone, "make --dry-run test")
    assert "-m pytest" in result.stdout


def test_the_named_folders_exist_and_the_profile_is_found_by_its_short_name():
    assert (REPOSITORY / "local").resolve() == REPOSITORY / "profiles/local"
    for link in re.findall(r"\]\(((?!http)[^)]+)\)", (REPOSITORY / "README.md").read_text()):
        assert (REPOSITORY / link).exists(), link
    assert os.access(REPOSITORY / ".ci/run", os.X_OK)
    assert len((REPOSITORY / "README.md").read_text().split()) < 600
    assert Path(sys.executable).exists()
