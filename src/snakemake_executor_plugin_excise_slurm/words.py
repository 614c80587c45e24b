"""What Slurm's words mean: of sbatch that gave no job, of a job that waits, of one that has ended. Pure functions."""

import re
from enum import Enum


class Refusal(Enum):
    """Why sbatch gave no job."""

    SILENT = "no controller answered, or not in time: the job may have been accepted"
    FULL = "a limit on the number of jobs in the queue: later it is taken"
    FINAL = "the same answer again, whenever it is asked"
    OTHER = "anything else"


SILENT = re.compile(
    r"Unable to contact slurm controller|Connection (refused|timed out|reset)|Socket timed out|Zero Bytes"
    r" were transmitted|Communication connection failure"
    r"|Transport endpoint is not connected|Unexpected message received"
)
FULL = re.compile(
    r"(QOS|Assoc)\w*Submit\w*|[Jj]ob submit limit reached|temporarily unable to accept job"
    r"|Resource temporarily unavailable"
)
FINAL = re.compile(
    r"Requested node configuration|[Ii]nvalid|Job violates accounting/QOS policy|not permitted|Access/permission denied"
    r"|Requested time limit|Requested partition configuration|No partition specified"
)


PLACE = re.compile(r"invalid (account|partition|qos)|not permitted to use this partition", re.IGNORECASE)
"""Of what is final, what concerns all jobs that name this account, partition and quality of service."""


def refusal(message: str) -> Refusal:
    """What a message of sbatch means."""
    kinds = ((SILENT, Refusal.SILENT), (FULL, Refusal.FULL), (FINAL, Refusal.FINAL))
    return next((kind for pattern, kind in kinds if pattern.search(message)), Refusal.OTHER)


FAILED = ("CANCELLED", "DEADLINE", "FAILED", "OUT_OF_MEMORY", "TIMEOUT", "ERROR")
"""States in which a job has ended because of itself, or of somebody who cancelled it."""

LOST = ("NODE_FAIL", "BOOT_FAIL", "REVOKED")
"""States in which a job has ended because of its node."""

PREEMPTED = "PREEMPTED"
"""State of a job that had to make room; as none of ours is requeued by Slurm, it has ended."""

ENDED = ("COMPLETED", *FAILED, *LOST, PREEMPTED)
"""States of a job that does no more work; all others may still write."""

NEVER = re.compile(
    r"Partition\w*Limit|BadConstraints|DependencyNeverSatisfied|InvalidAccount|InvalidQOS|AccountNotAllowed|QOSNotAllowed"
    r"|JobHeld(User|Admin)|[Rr]equeued? ?held|(QOS|Assoc)(Max|Min)\w+PerJob\w*|(QOS|Assoc)MaxWallDuration\w*"
)
"""Reasons for which a job that waits does not start by itself."""


def never_starts(state: str, reason: str) -> bool:
    """Whether a job waits for something that does not come by itself."""
    return state == "PENDING" and NEVER.search(reason) is not None


REASON = re.compile(
    r"slurmstepd|^\[\S+\] error: |srun: error|excise \S+: error|Error: \S|changed since this job was submitted"
)
"""Lines of a job's log that say why it ended; slurmstepd's begin with its name (Slurm 22.05) or the time (26.05)."""


def last_words(log: str, number: int = 6) -> list[str]:
    """The last lines of a job's log that say why it ended, or its last lines."""
    lines = log.splitlines()
    return [line for line in lines if REASON.search(line)][-number:] or lines[-number:]
