"""Snakemake's executor for Slurm as excise runs it: ``executor: excise-slurm`` (profiles/slurm).

A subclass of snakemake-executor-plugin-slurm 2.8, which writes sbatch's command lines. What is done otherwise here,
with the reason; tests/slurm has each on a real Slurm:

- A job is asked for by squeue, and what Slurm does not answer is no news. A job that Slurm forgot has ended, and its
  outputs tell how. Ours waits for ever where sacct fails.
- sbatch that failed may have been understood: the queue is looked at before it is called again, and a second copy of a
  job is cancelled. No attempt is lost where no controller answers or the queue is full.
- A job that had to make room, or whose node was lost, is submitted again as it was; the attempt is not its own failure.
- A retry does not ask for more time than the partition gives, and a job that Slurm will never start is told of.
- Account and partition are given by site.yaml, or else by sbatch's own rules; nothing is guessed.
- What a job is made of is noted before it is submitted, since Snakemake may be killed; the job compares before it runs.
- A job is one Snakemake on its node, not two: no srun that may fail while the controller is away.
- Ctrl-C cancels the jobs whose state is being asked, too. Why a job was killed is shown.
"""

import asyncio
import getpass
import shlex
import subprocess
import threading
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import snakemake_executor_plugin_slurm as slurm
from snakemake_interface_common.exceptions import WorkflowError
from snakemake_interface_executor_plugins.executors.base import SubmittedJobInfo

from snakemake_executor_plugin_excise_slurm import queue, shape, takeover, words
from snakemake_executor_plugin_excise_slurm.request import Request, requested

common_settings = slurm.common_settings

LOST_NODES = 5
"""Nodes that a job may lose before that counts as its own failure: it may be what kills them."""


@dataclass
class ExecutorSettings(slurm.ExecutorSettings):
    """The plugin's own settings."""


class Executor(slurm.Executor):
    """Submits jobs, watches them, and loses none."""

    def __post_init__(self, test_mode: bool = False) -> None:
        """Refuse what cannot work, before the first job."""
        if found := shape.problem():
            raise WorkflowError(found)
        if self.workflow.executor_settings.array_jobs:
            raise WorkflowError("--excise-slurm-array-jobs: not offered; one failing task would fail all")
        shape.quote_for_the_shell()
        super().__post_init__(test_mode)
        self._known: set[str] = set()
        self._strays: set[str] = set()
        self._told: set[str] = set()
        self._missing: dict[str, float] = {}
        self._lost: dict[Any, int] = {}
        self._refused: dict[str, str] = {}
        self._submitting = 0
        self._noting = threading.Lock()
        self._cancelled = False
        self._partition_limits = queue.partitions(queue.ask(["scontrol", "show", "partition", "--oneliner"])[0] or "")
        self._by_sacct = self.get_status_command() == "sacct"
        self._check_memory_of_slurm()
        takeover.note([self.run_uuid])

    def _check_memory_of_slurm(self) -> None:
        """Slurm must remember a job that ended until it is asked; where it does not, say what follows."""
        age = shape.used("job_status_query.get_min_job_age")()
        needed = 3 * self.workflow.executor_settings.init_seconds_before_status_checks
        if self._by_sacct or age is None or age >= needed:
            return
        if queue.ask(["sacct", "--noheader", "--name", self.run_uuid], timeout=20)[0] is not None:
            self._by_sacct = True
            self.logger.warning(f"Slurm forgets ended jobs after {age} s (MinJobAge), so sacct is asked instead.")
        else:
            self.logger.warning(
                f"Slurm forgets ended jobs after {age} s (MinJobAge, {needed} would do) and sacct does not work. How a "
                f"job ended is then seen from its outputs, {takeover.FORGOTTEN:g} s after it was last listed."
            )

    def additional_general_args(self) -> str:
        """The Snakemake on the node runs the job itself."""
        return "--executor excise-job"

    # ---- submission; in the threads of the plugin's pool ----

    def run_job(self, job: Any) -> None:
        """Submit a job; what goes wrong is reported, since nobody looks at what this thread raises."""
        try:
            self._record(job)
            wanted = requested(self, job)
            with self._noting:
                self._submitting += 1
            try:
                self._submit(wanted)
            finally:
                with self._noting:
                    self._submitting -= 1
        except Exception as error:
            self._report_job_error_threadsafe(SubmittedJobInfo(job), f"Not submitted: {error}")

    def _record(self, job: Any) -> None:
        """Write down what the job will be made from.

        Should Snakemake be killed, the job goes on and its outputs are kept; without this record they would count as
        up to date for ever, whatever changes in code and parameters.
        """
        if not job.is_group():
            persistence = self.workflow.persistence
            asyncio.run(persistence.finished(job))
            persistence.started(job)

    def _submit(self, wanted: Request) -> None:
        """Call sbatch until there is an answer."""
        if before := self._refused.get(wanted.place):
            self._give_up(wanted, f"as before: {before}")
            return
        while not self._cancelled:
            done = subprocess.run(  # noqa: S602 (the plugin's command line is one for the shell)
                wanted.call,
                shell=True,
                input=wanted.script,
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode == 0:
                first = done.stdout.strip().split(";")[0]
                self._accepted(wanted, shape.used("validation.validate_or_get_slurm_job_id")(first, done.stdout))
                return
            message = done.stderr.strip()
            meaning = words.refusal(message)
            if meaning is not words.Refusal.SILENT:
                self._refusal(wanted, meaning, message)
                return
            self._say(
                ("silent", wanted.job.jobid),
                f"Slurm does not answer ({message}); job {wanted.job.jobid} is submitted again shortly.",
            )
            if found := self._look(wanted):
                self.logger.warning(f"Slurm has job {wanted.job.jobid} after all: {found}.")
                self._accepted(wanted, found)
                return

    def _refusal(self, wanted: Request, meaning: words.Refusal, message: str) -> None:
        """What to do where sbatch said no."""
        if meaning is words.Refusal.FULL:
            self._say("full", f"The queue takes no more jobs now ({message}); the others are submitted later.")
            self._pause(takeover.LONGEST_PAUSE)
            if not self._cancelled:
                self._job_submission_executor.submit(self.run_job, wanted.job)  # behind the others
        elif meaning is words.Refusal.FINAL:
            if words.PLACE.search(message):
                self._refused[wanted.place] = message
            self._give_up(wanted, message)
        else:
            told = f"sbatch failed: {message}\n    {wanted.call}\n"
            self._report_job_error_threadsafe(SubmittedJobInfo(wanted.job), told)

    def _give_up(self, wanted: Request, message: str) -> None:
        """Report a job that Slurm does not take, without further attempts."""
        wanted.job.attempt = wanted.job.restart_times + 1  # the last one
        self._report_job_error_threadsafe(
            SubmittedJobInfo(wanted.job), f"sbatch refused it: {message}\n    {wanted.call}\n"
        )

    def _accepted(self, wanted: Request, number: str) -> None:
        """Note a job that Slurm has."""
        with self._noting:
            self._known.add(number)
        log = wanted.log.with_name(f"{number}.log")
        self.logger.info(f"Job {wanted.job.jobid} has been submitted with SLURM jobid {number} (log: {log}).")
        self._report_job_submission_threadsafe(
            SubmittedJobInfo(wanted.job, external_jobid=number, aux={"slurm_logfile": log, "comment": wanted.comment})
        )

    def _look(self, wanted: Request) -> str | None:
        """The job that sbatch did not tell of, found by run and comment; asked twice, as Slurm may be late."""
        answers = 0
        while answers < 2 and not self._cancelled:
            self._pause(takeover.LONGEST_PAUSE)
            text, _ = queue.ask(queue.squeue([self.run_uuid]))
            if text is None:
                continue
            answers += 1
            for job in queue.jobs(text):
                if job.comment == wanted.comment and job.id not in self._known:
                    return job.id
        return None

    def _pause(self, seconds: float) -> None:
        """Wait, but not longer than the run."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and not self._cancelled:
            time.sleep(0.2)

    def _say(self, once: Any, message: str) -> None:
        """Say something once."""
        if once not in self._told:
            self._told.add(once)
            self.logger.warning(message)

    def get_account_arg(self, job: Any) -> Iterator[str]:
        """The account that site.yaml names; else sbatch takes SBATCH_ACCOUNT or the user's default."""
        account = job.resources.get("slurm_account")
        yield f" -A {shlex.quote(str(account))}" if account else ""

    def get_partition_arg(self, job: Any) -> str:
        """The partition that site.yaml names, or the best of its table; else sbatch takes its default."""
        named = job.resources.get("slurm_partition")
        if not named and self._partitions:
            named = shape.used("partitions.get_best_partition")(self._partitions, job, self.logger)
        return f" -p {shlex.quote(str(named))}" if named else ""

    # ---- watching; in the thread that waits ----

    async def check_active_jobs(self, active_jobs: list[SubmittedJobInfo]) -> AsyncIterator[SubmittedJobInfo]:
        """Ask for the states of all jobs; report those that have ended, and give the others back."""
        initial = self.workflow.executor_settings.init_seconds_before_status_checks
        if not active_jobs:
            self.next_seconds_between_status_checks = initial
            return
        quiet = self._submitting == 0
        sacct = shape.used("job_status_query.query_job_status_sacct")(self.run_uuid)
        command = queue.sacct(sacct) if self._by_sacct else queue.squeue([self.run_uuid])
        text, _ = await asyncio.to_thread(queue.ask, command)
        ended = False
        if text is None:
            self.logger.warning("Slurm does not answer; asking again later.")
            self._missing.clear()
        found = {job.id: job for job in queue.jobs(text or "")}
        for active in active_jobs:
            if text is None or not self._has_ended(active, found.get(str(active.external_jobid))):
                yield active
            else:
                ended = True
        if quiet and self._submitting == 0:
            self._cancel_strays(found, {active.aux["comment"] for active in active_jobs})
        grown = self.next_seconds_between_status_checks + 10
        self.next_seconds_between_status_checks = initial if ended else min(grown, takeover.LONGEST_PAUSE)

    def _has_ended(self, active: SubmittedJobInfo, job: queue.Job | None) -> bool:
        """Whether a job has ended; then it is reported, or submitted again."""
        number = str(active.external_jobid)
        if job is None:
            now = time.monotonic()
            if now - self._missing.setdefault(number, now) <= takeover.FORGOTTEN:
                return False
            self.logger.warning(f"Slurm no longer lists job {number}; whether it succeeded is seen from its outputs.")
            self.report_job_success(active)  # Snakemake then looks for the outputs
            return True
        self._missing.pop(number, None)
        if job.state == "COMPLETED":
            self.report_job_success(active)
        elif job.state == words.PREEMPTED or (job.state in words.LOST and self._lost.get(active.job, 0) < LOST_NODES):
            if job.state in words.LOST:
                self._lost[active.job] = self._lost.get(active.job, 0) + 1
            self.logger.warning(
                f"Job {number} ended as {job.state}, which is not its own failure; it is submitted again."
            )
            self._job_submission_executor.submit(self.run_job, active.job)
        elif job.state in (*words.FAILED, *words.LOST):
            self.report_job_error(active, msg=f"Slurm says of job {number}: {job.state}.")
        else:
            if words.never_starts(job.state, job.reason):
                self._say(
                    (number, job.reason),
                    f"Slurm does not start job {number} ({job.comment}): {job.reason}. It waits until that changes; to "
                    f"give it up: scancel {number}",
                )
            return False
        return True

    def _cancel_strays(self, found: dict[str, queue.Job], comments: set[str]) -> None:
        """Cancel second copies of jobs, which sbatch started without telling; only after they were seen twice."""
        with self._noting:
            known = set(self._known)
        strays = {
            job.id
            for job in found.values()
            if job.id not in known and job.comment in comments and job.state in ("PENDING", "RUNNING")
        }
        for number in strays & self._strays:
            self.logger.warning(f"Slurm has a second copy of {found[number].comment}: job {number}; it is cancelled.")
            queue.ask(["scancel", number])
            with self._noting:
                self._known.add(number)
        self._strays = strays

    async def sleep(self) -> None:
        """Pause between queries; a run that ends does not wait for the next one."""
        pause = min(self.next_seconds_between_status_checks or takeover.LONGEST_PAUSE, takeover.LONGEST_PAUSE)
        end = time.monotonic() + pause
        while self.wait and time.monotonic() < end:
            await asyncio.sleep(0.5)

    def report_job_error(self, job_info: SubmittedJobInfo, msg: str | None = None, **options: Any) -> None:
        """Show what the log of a failed job says: the node's daemon writes there why it killed the job."""
        path = (job_info.aux or {}).get("slurm_logfile")
        if path is not None and Path(path).exists():
            lines = words.last_words(Path(path).read_text(errors="replace"))
            msg = "\n    ".join([msg or "", "Last lines of its Slurm log:", *lines, ""])
        super().report_job_error(job_info, msg=msg, **options)

    def cancel_jobs(self, active_jobs: list[SubmittedJobInfo]) -> None:
        """Cancel all jobs of this run, not only those that are in hand at this moment."""
        self._cancelled = True
        queue.ask(["scancel", "--user", getpass.getuser(), "--name", self.run_uuid])
        super().cancel_jobs(active_jobs)
