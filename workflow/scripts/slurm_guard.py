"""Cures for snakemake-executor-plugin-slurm 2.8.0, and how a run goes on behind one that was killed.

All that we change in the plugin is in this file. Each line below says the fault, the cure, and the test (tests/slurm)
that fails without it: to see whether a newer plugin needs a cure no longer, take it out of ``install`` and run that.

- While squeue fails it turns to sacct, and without accounting waits for ever. ``_settled_age``; restarted controller.
- A failed query drops all running jobs, and the run waits for ever. ``_states``; restarted controller, database down.
- "CANCELLED by 0", which sacct says, is no state it knows. ``_states``; cancelled, seen through sacct.
- A job that Slurm forgot is waited for, for ever. ``_states``; unit/test_slurm_guard.py.
- Pauses between queries grow to 180 s, and the end waits for the last. ``_sleep``; every test would take minutes.
- sbatch fails while the controller restarts, which costs an attempt. ``_submission_failed``; no attempt is lost.
- What sbatch refuses is submitted twice more, asking for more. ``_submission_failed``; refused.
- Ctrl-C forgets jobs whose state is being asked; a second Ctrl-C leaves all. ``_cancel``, ``_interrupt``; Ctrl-C.
- It guesses an account, by a wrong call of sacct. ``_account``; the messages of every test.
- Why a job was killed stands in a long file only. ``_with_last_lines``; memory limit, time limit.
- Of a job around Snakemake, SLURM_CONF is lost and SBATCH_* stay. ``_clean_environment``; inside a Slurm job.
- Killed and started again, it submits running jobs a second time. ``_wait_for_orphans``; killed and started again.
- What those jobs wrote has no metadata, so later changes go unnoticed. ``_run_job``; killed and started again.
- Folders with both ' and " in their name break a job's command (snakemake-interface-executor-plugins 9.4.0).
  ``_quoted``; all tests.
"""

import asyncio
import getpass
import json
import logging
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
from snakemake_interface_executor_plugins import utils

logger = logging.getLogger("snakemake")

LONGEST_PAUSE = float(os.environ.get("EXCISE_SLURM_PAUSE", "30"))
"""Seconds between two queries at most: one squeue by name each, which no controller notices."""

FORGOTTEN = 60.0
"""Seconds after which a job that Slurm does not list has ended, whatever it ended like: its outputs tell."""

PATIENCE = 1800.0
"""Seconds that sbatch is tried again while no controller answers."""

NO_CONTROLLER = ("Unable to contact slurm controller", "Connection refused")
"""What sbatch says when the job was certainly not accepted."""

REFUSED = ("submission failed: Requested node configuration", "submission failed: Invalid")
"""What sbatch says when it would say the same again: no node has what is asked for, no such partition or account."""

OWNER = Path(".snakemake/slurm-owner.json")
"""Who works in this folder: host, process, its start, and the names of runs whose jobs may still be in Slurm."""


def install(workflow: Any) -> None:
    """Cure the plugin, and make ``workflow`` wait for a killed run's jobs before it plans its own.

    Does nothing where the plugin is not installed, and inside a job only what concerns the command of the next step.
    """
    utils.format_cli_value = _quoted(utils.format_cli_value)
    if workflow.remote_exec:
        os.environ["HF_HUB_OFFLINE"] = "1"  # what a compute node needs was fetched on the login node
    plugin = sys.modules.get("snakemake_executor_plugin_slurm")
    if plugin is None or workflow.remote_exec or workflow.subprocess_exec:
        return
    prepare = workflow._prepare_dag

    def prepare_after_orphans(*arguments: Any, **options: Any) -> None:
        prepare(*arguments, **options)
        if workflow.executor_plugin is not None and workflow.executor_plugin.name == "slurm":
            _clean_environment()
            _wait_for_orphans(_take_over())
            signal.signal(signal.SIGINT, _interrupt)

    workflow._prepare_dag = prepare_after_orphans
    if getattr(plugin, "_excise", False):
        return  # several workflows in one process, as in Snakemake's own API
    plugin._excise = True
    executor = plugin.Executor
    plugin.get_min_job_age = _settled_age(plugin.get_min_job_age)
    plugin.query_job_status = _states(plugin.query_job_status)
    executor.__post_init__ = _noted(executor.__post_init__)
    executor.check_active_jobs = _told_which(executor.check_active_jobs)
    executor.run_job = _run_job(executor.run_job)
    executor.report_job_error = _with_last_lines(executor.report_job_error)
    executor._report_job_error_threadsafe = _submission_failed(executor._report_job_error_threadsafe)
    executor.cancel_jobs = _cancel(executor.cancel_jobs)
    executor.sleep = _sleep
    executor.get_account_arg = _account(executor.get_account_arg)


def _quoted(original: Any) -> Any:
    """Strings on a job's command line are quoted for the shell, not for Python."""

    def format_cli_value(value: Any, quote: bool = False, base64_encode: bool = False) -> str:
        if isinstance(value, str) and quote and not base64_encode and not utils.is_quoted(value):
            return shlex.quote(value)
        formatted: str = original(value, quote=quote, base64_encode=base64_encode)
        return formatted

    return format_cli_value


def _clean_environment() -> None:
    """Forget the job that Snakemake itself runs in; its own jobs would take over what that one was given."""
    for name in [name for name in os.environ if name.startswith(("SLURM_", "SBATCH_", "SRUN_", "SALLOC_"))]:
        if name != "SLURM_CONF":
            del os.environ[name]


# ---- states ----

_expected: set[str] = set()
_missing_since: dict[str, float] = {}


def _settled_age(original: Any) -> Any:
    """MinJobAge is asked until it is known, then remembered."""
    known: list[int] = []

    def get_min_job_age() -> int | None:
        if not known and (age := original()) is not None:
            known.append(age)
        return known[0] if known else 10**6  # no answer now: no reason to leave squeue

    return get_min_job_age


def _told_which(original: Any) -> Any:
    """Note which jobs a query is about."""

    async def check_active_jobs(self: Any, active_jobs: list[Any]) -> Any:
        _expected.clear()
        _expected.update(job.external_jobid for job in active_jobs)
        async for job in original(self, active_jobs):
            yield job

    return check_active_jobs


def _states(original: Any) -> Any:
    """A failed query is no news; states are cut at the first space; what Slurm forgot has ended."""

    async def query_job_status(command: str, log: Any) -> tuple[dict[str, str], float]:
        states, seconds = await original(command, log)
        if states is None:
            logger.warning("Slurm does not answer; asking again later.")
            _missing_since.clear()
            return {}, 0.0
        states = {job: (state.split() or [""])[0] for job, state in states.items()}
        now = time.monotonic()
        for job in _expected:
            if job in states:
                _missing_since.pop(job, None)
            elif now - _missing_since.setdefault(job, now) > FORGOTTEN:
                logger.warning(f"Slurm no longer lists job {job}; whether it succeeded is seen from its outputs.")
                states[job] = "UNKNOWN"  # the plugin's word for "ended"; Snakemake then looks for the outputs
        return states, seconds

    return query_job_status


async def _sleep(self: Any) -> None:
    """Pause between queries; a run that ends does not wait for the next one."""
    end = time.monotonic() + min(self.next_seconds_between_status_checks or LONGEST_PAUSE, LONGEST_PAUSE)
    while self.wait and time.monotonic() < end:
        await asyncio.sleep(0.5)


REASON = re.compile(r"slurmstepd|^\[\S+\] error: |srun: error|excise \S+: error|Error: \S")
"""Lines of a job's log that say why it ended; slurmstepd's begin with its name (Slurm 22.05) or the time (26.05)."""


def _with_last_lines(original: Any) -> Any:
    """Show what the log of a failed job says: the node's daemon writes there why it killed the job."""

    def report_job_error(self: Any, job_info: Any, msg: str | None = None, **options: Any) -> None:
        path = (job_info.aux or {}).get("slurm_logfile")
        if path is not None and Path(path).exists():
            lines = Path(path).read_text(errors="replace").splitlines()
            lines = [line for line in lines if REASON.search(line)][-6:] or lines[-6:]
            msg = "\n    ".join([msg or "", "Last lines of its Slurm log:", *lines, ""])
        original(self, job_info, msg=msg, **options)

    return report_job_error


# ---- submission and cancellation ----


def _run_job(original: Any) -> Any:
    """Write down what the job will be made from before it is submitted.

    Should Snakemake be killed, the job goes on and its outputs are kept; without this record they would count as
    up to date for ever, whatever changes in code and parameters.
    """

    def run_job(self: Any, job: Any) -> None:
        if not job.is_group():
            persistence = self.workflow.persistence
            asyncio.run(persistence.finished(job))
            persistence.started(job)
        original(self, job)

    return run_job


def _submission_failed(original: Any) -> Any:
    """While no controller answers, a submission is repeated and no attempt is lost. A refusal is not tried again."""
    since: dict[Any, float] = {}

    def report(self: Any, job_info: Any, msg: str) -> None:
        began = since.setdefault(job_info.job, time.monotonic())
        unanswered = any(reason in msg for reason in NO_CONTROLLER)
        if unanswered and time.monotonic() - began < PATIENCE and not getattr(self, "_cancelled", False):
            logger.warning(f"Slurm does not answer; job {job_info.job.jobid} is submitted again shortly.")
            time.sleep(LONGEST_PAUSE)
            self.run_job(job_info.job)
            return
        since.pop(job_info.job, None)
        if any(reason in msg for reason in REFUSED):
            job_info.job.attempt = job_info.job.restart_times + 1  # the last one
        original(self, job_info, msg)

    return report


def _interrupt(*_: Any) -> None:
    """Ctrl-C cancels all jobs, which takes a second; a second Ctrl-C must not end that."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    raise KeyboardInterrupt


def _account(original: Any) -> Any:
    """An account is given or it is not; guesses end in sacct's usage message on clusters without accounting."""

    def get_account_arg(self: Any, job: Any) -> Iterator[str]:
        if job.resources.get("slurm_account"):
            yield from original(self, job)
        else:
            yield ""

    return get_account_arg


def _cancel(original: Any) -> Any:
    """Cancel all jobs of this run, not only those that the plugin has in hand at this moment."""

    def cancel_jobs(self: Any, active_jobs: list[Any]) -> None:
        self._cancelled = True
        subprocess.run(["scancel", "--user", getpass.getuser(), "--name", self.run_uuid], check=False, timeout=60)
        original(self, active_jobs)

    return cancel_jobs


# ---- behind a killed run ----


def owner() -> dict[str, Any] | None:
    """Who was last noted as working in this folder through Slurm."""
    try:
        found: dict[str, Any] = json.loads(OWNER.read_text())
    except FileNotFoundError:
        return None
    return found


def lives(found: dict[str, Any]) -> bool | None:
    """Whether that process still runs beside ours; None when it was on another host."""
    if found["host"] != socket.gethostname():
        return None
    try:
        process = psutil.Process(found["process"])
        alive = abs(process.create_time() - found["started"]) < 1 and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
    return alive and process.pid != os.getpid()


def _note(runs: list[str]) -> None:
    """Note that this folder is ours, and which runs may have jobs in Slurm."""
    ours = {"host": socket.gethostname(), "process": os.getpid(), "started": psutil.Process().create_time()}
    OWNER.parent.mkdir(exist_ok=True)
    draft = OWNER.with_suffix(".tmp")
    draft.write_text(json.dumps(ours | {"runs": runs}))
    draft.replace(OWNER)


def _noted(original: Any) -> Any:
    """Note the run's name before it submits anything."""

    def post_init(self: Any, *arguments: Any, **options: Any) -> None:
        original(self, *arguments, **options)
        _note([self.run_uuid])

    return post_init


def _take_over() -> list[str]:
    """Note that this folder is ours; remove the lock of a run of this host that was killed.

    Returns:
        Names of earlier runs whose jobs may still be in Slurm.
    """
    from snakemake_interface_common.exceptions import WorkflowError

    found = owner()
    state = None if found is None else lives(found)
    locks = list(Path(".snakemake/locks").glob("*"))
    if found is not None and state:
        raise WorkflowError(
            f"another Snakemake works in this folder (process {found['process']} on {found['host']}); "
            "wait for it or stop it"
        )
    if found is not None and locks and state is None:
        raise WorkflowError(
            f"a Snakemake on {found['host']} (process {found['process']}) works in this folder, or was killed there. "
            f"If it does not run any more: snakemake --unlock, then start again."
        )
    if found is not None and locks:
        logger.warning("Removing the lock of a run that was killed.")
        for lock in locks:
            lock.unlink()
    runs: list[str] = [] if found is None else found["runs"]
    _note(runs)
    return runs


def _orphans(runs: list[str]) -> list[list[str]]:
    """Id, state and comment of each job of these runs that has not ended."""
    asked = ["squeue", "--name", ",".join(runs), "--noheader", "--format", "%i|%T|%k"]
    while True:
        answer = subprocess.run(asked, capture_output=True, text=True, check=False)
        if answer.returncode == 0:
            return [line.split("|", 2) for line in answer.stdout.splitlines()]
        logger.warning(f"Slurm does not answer ({answer.stderr.strip()}); asking again in {LONGEST_PAUSE:g} s.")
        time.sleep(LONGEST_PAUSE)


def _wait_for_orphans(runs: list[str]) -> None:
    """Wait until no job of an earlier run works in this folder; say which ones."""
    told: list[str] = []
    while found := _orphans(runs) if runs else []:
        ids = [job for job, _, _ in found]
        if ids != told:
            listed = "\n".join(f"  {job} {state} {comment}" for job, state, comment in found)
            logger.warning(
                f"Waiting for {len(found)} jobs that an earlier run left in Slurm; they are not submitted again.\n"
                f"{listed}\nTo give them up: scancel {' '.join(ids)}"
            )
            told = ids
        time.sleep(min(LONGEST_PAUSE, 5))
    if told:
        logger.warning("The jobs of the earlier run have ended; going on.")
