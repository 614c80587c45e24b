"""What is asked of Slurm for a job: the command line of sbatch, its script, its time limit."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from snakemake_executor_plugin_excise_job import PLANNED, fingerprint
from snakemake_executor_plugin_excise_slurm import queue, shape


class _Resources(dict[str, Any]):
    """Resources that the plugin's functions can read by ``get`` and by attribute."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


class _With:
    """A job with other resources."""

    def __init__(self, job: Any, resources: dict[str, Any]) -> None:
        self._job = job
        self.resources = _Resources(resources)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._job, name)


@dataclass(frozen=True)
class Request:
    """A job as sbatch gets it.

    Attributes:
        job: of Snakemake.
        call: command line for the shell.
        script: what it reads from its standard input.
        comment: rule and wildcards; with the run's name it tells this job from all others.
        log: the job's log, ``%j`` for its number.
        place: account, partition and quality of service, to which sbatch may say no for all jobs alike.
    """

    job: Any
    call: str
    script: str
    comment: str
    log: Path
    place: str


def requested(executor: Any, job: Any) -> Request:
    """Write the command line of a job's sbatch, in the plugin's own words.

    Args:
        executor: the executor that submits.
        job: of Snakemake.
    """
    wildcards = shape.used("utils.get_job_wildcards")(job)
    name = f"{'group' if job.is_group() else 'rule'}_{job.name}"
    comment = f"{name}_wildcards_{wildcards}" if wildcards else name
    log = Path(executor.slurm_logdir) / name / wildcards / "%j.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    shape.used("validation.validate_slurm_extra")(job)
    wanted = _With(job, _limited(executor, job))
    account, partition = next(executor.get_account_arg(wanted)), executor.get_partition_arg(wanted)
    parameters = {
        "run_uuid": executor.run_uuid,
        "slurm_logfile": log,
        "comment_str": comment,
        "account": account,
        "partition": partition,
        "workdir": executor.workflow.workdir_init,
    }
    write = shape.used("submit_string.get_submit_command")
    call = write(wanted, parameters, settings=executor.workflow.executor_settings, failed_nodes=executor._failed_nodes)
    call += shape.used("utils.set_gres_string")(wanted)
    planned = "" if job.is_group() else f"export {PLANNED}={fingerprint(job)}\n"
    script = f"#!/bin/sh\n{planned}{executor.format_job_exec(job)}\n"
    place = f"{account}{partition} {wanted.resources.get('qos')}"
    return Request(job, f"{call} /dev/stdin", script, comment, log, place)


def _limited(executor: Any, job: Any) -> dict[str, Any]:
    """The job's resources, with no more time than its partition gives."""
    resources = dict(job.resources.items())
    asked = resources.get("runtime")
    if not asked:
        return resources
    if executor._partitions and not resources.get("slurm_partition"):
        table = max((one.limits.max_runtime, one.name) for one in executor._partitions)
        limit: tuple[str, float] | None = (table[1], table[0])
    else:
        named = resources.get("slurm_partition") or os.environ.get("SBATCH_PARTITION")
        limit = queue.longest(executor._partition_limits, str(named) if named else None)
    if limit is not None and asked > limit[1]:
        executor.logger.warning(
            f"Job {job.jobid} asks for {int(limit[1])} minutes, the most that partition {limit[0]} gives, not {asked}."
        )
        resources["runtime"] = int(limit[1])
    return resources
