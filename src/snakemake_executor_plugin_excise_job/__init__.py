"""Runs a job on its node, as Snakemake's local executor does, if it is still the job that was planned.

A job waits in the queue, for days perhaps. It reads the settings from the copy that its run made; but its code is the
code of the day it starts. What it is made of by then (parameters, which hold the digests of its code, and its command)
must be what the run has noted, or else its record would tell of another job than the one that ran.
"""

import hashlib
import os
from typing import Any

from snakemake.executors import local
from snakemake_interface_executor_plugins.executors.base import SubmittedJobInfo

PLANNED = "EXCISE_PLANNED"
"""Environment variable: the fingerprint of the job that was planned."""

common_settings = local.common_settings


def fingerprint(job: Any) -> str:
    """What a job is made of: its parameters as Snakemake records them, and its command before they are filled in."""
    made = [sorted(map(repr, job.non_derived_params)), job.rule.shellcmd]
    return hashlib.sha256(repr(made).encode()).hexdigest()[:16]


class Executor(local.Executor):
    """Snakemake's own, but it refuses a job that has changed."""

    def run_job(self, job: Any) -> None:
        """Run the job in this process."""
        planned = os.environ.get(PLANNED)
        if planned is None or planned == fingerprint(job):
            super().run_job(job)
            return
        job_info = SubmittedJobInfo(job)
        self.report_job_submission(job_info)
        self.report_job_error(
            job_info,
            msg="\nchanged since this job was submitted: the code of its stage, of its scorer or of its rule. "
            "Start the run again; it plans anew.\n",
        )
