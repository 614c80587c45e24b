"""What a run through Slurm does before it plans: settle who works in this folder, and keep what its jobs shall read.

A run that was killed leaves its lock, and jobs in Slurm that write into this folder. The next one waits for those jobs.
All this must happen before Snakemake looks which files there are, and no plugin is asked so early: ``install`` puts it
in front of ``Workflow._prepare_dag`` (Snakemake 9.19 to 9.27).
"""

import hashlib
import json
import logging
import os
import signal
import socket
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from snakemake_executor_plugin_excise_slurm import queue, words

logger = logging.getLogger("snakemake")

NAME = "excise-slurm"

LONGEST_PAUSE = float(os.environ.get("EXCISE_SLURM_PAUSE", "30"))
"""Seconds between two queries at most: one squeue by name each, which no controller notices."""

FORGOTTEN = 60.0
"""Seconds after which a job that Slurm does not list has ended, whatever it ended like: its outputs tell."""

OWNER = Path(".snakemake/slurm-owner.json")
"""Who works in this folder: host and its boot, process and its start, and the runs whose jobs may still be in Slurm."""

PLANNED = Path(".snakemake/excise")
"""Copies of the settings that jobs read, by the digest of their content."""

SHELLS_OWN = ("ACCOUNT", "PARTITION", "QOS", "CONSTRAINT", "RESERVATION")
"""Of SBATCH_..., what says whose a job is and where it may run; how large it is, each job says itself."""


def install(workflow: Any, config: Mapping[str, Any], doubts: Iterable[str] = ()) -> None:
    """Make ``workflow`` settle all this before it plans, if it is to submit jobs.

    Args:
        workflow: of Snakemake.
        config: the settings as they were given, command line included.
        doubts: what is to be said before jobs are submitted.
    """
    if workflow.remote_exec:
        os.environ["HF_HUB_OFFLINE"] = "1"  # what a compute node needs was fetched on the login node
        return
    if workflow.subprocess_exec:
        return
    prepare = workflow._prepare_dag
    given = json.dumps(config)

    def prepare_after_orphans(*arguments: Any, **options: Any) -> None:
        prepare(*arguments, **options)
        name = None if workflow.executor_plugin is None else workflow.executor_plugin.name
        if name == "slurm":
            raise _error(
                f"--executor slurm: use {NAME}, as profiles/slurm does; the other one loses jobs (docs/slurm.md)"
            )
        if name == NAME:
            clean_environment()
            _wait_for_orphans(take_over())
            freeze(workflow, given)
            for doubt in doubts:
                logger.warning(doubt)
            signal.signal(signal.SIGINT, _interrupt)

    workflow._prepare_dag = prepare_after_orphans


def _error(message: str) -> Exception:
    from snakemake_interface_common.exceptions import WorkflowError

    error: Exception = WorkflowError(message)
    return error


def freeze(workflow: Any, given: str) -> Path:
    """Have jobs read a copy of the settings: who edits the file while jobs wait plans the next run, not this one.

    Returns:
        The copy; its name is the digest of its content, so that runs never share one that differs.
    """
    path = (PLANNED / f"config-{hashlib.sha256(given.encode()).hexdigest()[:16]}.json").absolute()
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(f".{os.getpid()}.tmp")
    draft.write_text(given)
    draft.replace(path)
    workflow.config_settings.configfiles = [path]
    return path


def clean_environment() -> None:
    """Forget the job that Snakemake itself runs in, and sizes of jobs that the shell holds; say which.

    sbatch takes SBATCH_ACCOUNT and its like where site.yaml names none, and jobs get what the command line says.
    """
    inside = "SLURM_JOB_ID" in os.environ
    dropped = []
    for name in list(os.environ):
        family, _, what = name.partition("_")
        if family == "SBATCH" and what not in SHELLS_OWN:
            dropped.append(name)
            del os.environ[name]
        elif inside and (family in ("SRUN", "SALLOC") or (family == "SLURM" and what != "CONF")):
            del os.environ[name]
    if dropped:
        logger.warning(
            f"Not used: {', '.join(sorted(dropped))}. Each job asks for what it needs; of the shell, SBATCH_"
            f"{', SBATCH_'.join(SHELLS_OWN)} are respected, and site.yaml comes before them."
        )


def _interrupt(*_: Any) -> None:
    """Ctrl-C cancels all jobs, which takes a second; a second Ctrl-C must not end that."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    raise KeyboardInterrupt


# ---- who works here ----


def _boot() -> str:
    """Which start of this machine it is."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _ticks(process: int) -> int | None:
    """When a process started, in ticks since the machine did; None where there is none, or only its remains.

    A wall clock may be stepped; these ticks may not.
    """
    try:
        text = Path(f"/proc/{process}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    state, *fields = text.rpartition(")")[2].split()  # the name before may hold anything
    return None if state in "ZX" else int(fields[18])


def owner() -> dict[str, Any] | None:
    """Who was last noted as working in this folder through Slurm."""
    try:
        found: dict[str, Any] = json.loads(OWNER.read_text())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise _error(f"{OWNER}: not readable ({error}). When no Snakemake works here, delete it.") from error
    return found


def lives(found: Mapping[str, Any]) -> bool | None:
    """Whether that process still runs beside ours; None when it was on another host, or cannot be told."""
    if found["host"] != socket.gethostname() or "ticks" not in found:
        return None
    same: bool = found["boot"] == _boot() and _ticks(found["process"]) == found["ticks"]
    return same and found["process"] != os.getpid()


def note(runs: list[str]) -> None:
    """Note that this folder is ours, and which runs may have jobs in Slurm."""
    ours = {"host": socket.gethostname(), "boot": _boot(), "process": os.getpid(), "ticks": _ticks(os.getpid())}
    OWNER.parent.mkdir(exist_ok=True)
    draft = OWNER.with_suffix(".tmp")
    draft.write_text(json.dumps(ours | {"runs": runs}))
    draft.replace(OWNER)


def take_over() -> list[str]:
    """Note that this folder is ours; remove the lock of a run of this host that was killed.

    Returns:
        Names of earlier runs whose jobs may still be in Slurm.
    """
    found = owner()
    state = None if found is None else lives(found)
    locks = list(Path(".snakemake/locks").glob("*"))
    if found is not None and state:
        raise _error(
            f"another Snakemake works in this folder (process {found['process']} on {found['host']}); "
            "wait for it or stop it"
        )
    if found is not None and locks and state is None:
        raise _error(
            f"a Snakemake on {found['host']} (process {found['process']}) works in this folder, or was killed there. "
            f"If it does not run any more: snakemake --unlock, then start again."
        )
    if found is not None and locks:
        logger.warning("Removing the lock of a run that was killed.")
        for lock in locks:
            lock.unlink()
    runs: list[str] = [] if found is None else found["runs"]
    note(runs)
    return runs


def _orphans(runs: list[str]) -> list[queue.Job]:
    """The jobs of these runs that have not ended."""
    while True:
        text, why = queue.ask(queue.squeue(runs))
        if text is not None:
            return [job for job in queue.jobs(text) if job.state not in words.ENDED]
        logger.warning(f"Slurm does not answer ({why}); asking again in {LONGEST_PAUSE:g} s.")
        time.sleep(LONGEST_PAUSE)


def _wait_for_orphans(runs: list[str]) -> None:
    """Wait until no job of an earlier run works in this folder; say which ones."""
    told: list[str] = []
    while found := _orphans(runs) if runs else []:
        ids = [job.id for job in found]
        if ids != told:
            listed = "\n".join(f"  {job.id} {job.state} {job.comment}" for job in found)
            logger.warning(
                f"Waiting for {len(found)} jobs that an earlier run left in Slurm; they are not submitted again.\n"
                f"{listed}\nTo give them up: scancel {' '.join(ids)}"
            )
            told = ids
        time.sleep(min(LONGEST_PAUSE, 5))
    if told:
        logger.warning("The jobs of the earlier run have ended; going on.")
