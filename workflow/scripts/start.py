"""Start Snakemake with the given arguments, after clearing up behind a run that was killed.

A Snakemake that was killed leaves its lock and perhaps running jobs. This launcher refuses to start beside a living
Snakemake of the same working directory, waits for jobs that a dead one left, removes the dead one's lock, and then
becomes Snakemake.
"""

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import slurm_guard


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


def main() -> None:
    """Check, clear up, become Snakemake."""
    snakemake = str(Path(sys.executable).parent / "snakemake")
    if alive := running_here("snakemake"):
        sys.exit(f"another Snakemake is running in this folder (process {alive[0]}); wait for it or stop it first")
    while jobs := running_here("excise"):
        print(f"waiting for jobs that a killed run left behind (processes {jobs})", file=sys.stderr)
        time.sleep(5)
    if any(Path(".snakemake/locks").glob("*.lock")):
        if (found := slurm_guard.owner()) and slurm_guard.lives(found) is None:
            sys.exit(
                f"a Snakemake on {found['host']} (process {found['process']}) works here, or was killed there; "
                "start it there, or if it does not run any more: snakemake --unlock"
            )
        print("removing the lock of a run that was killed", file=sys.stderr)
        subprocess.run([snakemake, "--unlock", *sys.argv[1:]], check=True)
    os.execv(snakemake, [snakemake, *sys.argv[1:]])  # noqa: S606 (no shell is wanted)


if __name__ == "__main__":
    main()
