"""Start Snakemake with the given arguments, after clearing up behind a run that was killed.

A Snakemake that was killed leaves its lock and perhaps running jobs. This launcher refuses to start beside a living
Snakemake of the same working directory, waits for jobs that a dead one left, removes the dead one's lock, and then
becomes Snakemake. What Snakemake would answer with a traceback of its own it says before: a configuration file that
cannot be read, a folder for caches that cannot be written.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil

from excise.config.reading import check_file
from excise.errors import ExciseError
from snakemake_executor_plugin_excise_slurm import takeover


def running_here(program: str) -> list[int]:
    """Process ids of a program's other instances whose working directory is ours."""
    found = []
    own = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    for process in psutil.process_iter(["pid", "cmdline"]):
        if process.pid in own or not any(Path(part).name == program for part in process.info["cmdline"] or ()):
            continue
        try:
            if process.status() != psutil.STATUS_ZOMBIE and Path(process.cwd()) == Path.cwd():
                found.append(process.pid)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue  # it ended meanwhile, or is somebody else's: neither works in our folder
    return found


def config_files(arguments: Sequence[str]) -> Iterator[Path]:
    """The configuration files that a command line names."""
    inside = False
    for word in arguments:
        option, _, value = word.partition("=")
        if option in ("--configfile", "--configfiles"):
            inside = True
            if value:
                yield Path(value)
        elif word.startswith("-"):
            inside = False
        elif inside:
            yield Path(word)


def check_caches() -> None:
    """Snakemake and the model libraries keep caches below the home.

    Raises:
        ExciseError: they cannot be written.
    """
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser())
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ExciseError(
            f"{folder}: caches cannot be written ({error.strerror}). Name another folder: export XDG_CACHE_HOME=FOLDER "
            "(and HF_HOME, if that is below the same home)"
        ) from error
    try:
        tempfile.gettempdir()
    except OSError as error:
        raise ExciseError(f"no folder for temporary files: {error}. Name one: export TMPDIR=FOLDER") from error


def main() -> None:
    """Check, clear up, become Snakemake."""
    snakemake = str(Path(sys.executable).parent / "snakemake")
    try:
        check_caches()
        for path in config_files(sys.argv[1:]):
            if path.is_file():
                check_file(path)
    except ExciseError as error:
        sys.exit(str(error))
    if alive := running_here("snakemake"):
        sys.exit(f"another Snakemake is running in this folder (process {alive[0]}); wait for it or stop it first")
    while jobs := running_here("excise"):
        print(f"waiting for jobs that a killed run left behind (processes {jobs})", file=sys.stderr)
        time.sleep(5)
    if any(Path(".snakemake/locks").glob("*.lock")):
        if (found := takeover.owner()) and takeover.lives(found) is None:
            sys.exit(
                f"a Snakemake on {found['host']} (process {found['process']}) works here, or was killed there; "
                "start it there, or if it does not run any more: snakemake --unlock"
            )
        print("removing the lock of a run that was killed", file=sys.stderr)
        subprocess.run([snakemake, "--unlock", *sys.argv[1:]], check=True)
    os.execv(snakemake, [snakemake, *sys.argv[1:]])  # noqa: S606 (no shell is wanted)


if __name__ == "__main__":
    main()
