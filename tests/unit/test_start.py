"""The launcher and the command line where a terminal, a home or a file is not as one expects."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from workflow.scripts import start


def launch(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Start the launcher with these arguments."""
    command = [sys.executable, str(REPOSITORY / "workflow/scripts/start.py"), *arguments]
    return subprocess.run(
        command, cwd=folder, env=os.environ | environment, capture_output=True, text=True, check=False
    )


def test_a_home_that_cannot_be_written_is_named_with_the_way_out(tmp_path):
    (tmp_path / "file").touch()  # below which nobody can make a folder, root neither
    found = launch(tmp_path, "--version", XDG_CACHE_HOME="", HOME=str(tmp_path / "file"))
    assert found.returncode == 1
    assert "caches cannot be written" in found.stderr
    assert "export XDG_CACHE_HOME=FOLDER" in found.stderr
    assert "Traceback" not in found.stderr
    assert launch(tmp_path, "--version", XDG_CACHE_HOME=str(tmp_path), HOME=str(tmp_path / "file")).returncode == 0


@pytest.mark.parametrize(
    ("data", "message"),
    [(b"a: caf\xe9\n", "is not UTF-8"), (b"a:\n\tb: 1\n", "this line has a tab"), (b"a: 1\na: 2\n", "again in line 2")],
)
def test_a_configuration_that_cannot_be_read_is_named_before_snakemake_reads_it(tmp_path, data, message):
    (tmp_path / "mine.yaml").write_bytes(data)
    found = launch(tmp_path, "--cores", "1", "--configfile", "mine.yaml", "--dry-run")
    assert found.returncode == 1
    assert message in found.stderr
    assert "Traceback" not in found.stderr


def test_which_files_a_command_line_names():
    words = "--cores 2 --configfile a.yaml b.yaml --dry-run c.yaml --configfiles=d.yaml --until x"
    assert list(start.config_files(words.split())) == [Path("a.yaml"), Path("b.yaml"), Path("d.yaml")]


def test_a_terminal_that_lacks_a_letter_shows_its_number(tmp_path):
    environment = os.environ | {"PYTHONIOENCODING": "latin-1", "PYTHONPATH": str(REPOSITORY / "src")}
    code = "import sys; from excise.cli import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, "show", "结果.json"]
    found = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, check=False)
    assert found.returncode == 1
    assert b"\\u7ed3\\u679c.json" in found.stderr
    assert b"Traceback" not in found.stderr
