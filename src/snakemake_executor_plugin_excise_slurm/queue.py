"""Ask Slurm: which jobs of a run it knows, what a partition allows, how long it remembers."""

import os
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

FILTERS = ("SQUEUE_", "SACCT_", "SCANCEL_", "SINFO_")
"""Variables that change what these commands list, or strike: a person's own habits, not ours."""


@dataclass(frozen=True)
class Job:
    """A job as Slurm lists it.

    Attributes:
        id: its number.
        state: one word, ``CANCELLED`` for "CANCELLED by 0".
        reason: why it waits; empty from sacct.
        comment: rule and wildcards; empty from sacct.
    """

    id: str
    state: str
    reason: str = ""
    comment: str = ""


def ask(command: Sequence[str], timeout: float = 60) -> tuple[str | None, str]:
    """What a command of Slurm prints, and what it complains of; None where it fails."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(FILTERS)}
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=timeout, env=environment, errors="replace"
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return None, str(error)
    return (done.stdout if done.returncode == 0 else None), done.stderr.strip()


def squeue(runs: Iterable[str]) -> list[str]:
    """The command that lists the jobs of these runs, ended ones too while Slurm remembers them."""
    return ["squeue", "--name", ",".join(runs), "--states", "all", "--noheader", "--format", "%i|%T|%r|%k"]


def sacct(command: str) -> list[str]:
    """The plugin's command for sacct, which prints number and state, as words."""
    return command.split()


def jobs(text: str) -> list[Job]:
    """Read what ``squeue`` or ``sacct`` printed."""
    found = []
    for line in text.splitlines():
        number, _, rest = line.partition("|")
        state, _, rest = rest.partition("|")
        reason, _, comment = rest.partition("|")
        if number.strip():
            found.append(Job(number.strip(), (state.split() or [""])[0], reason.strip(), comment))
    return found


@dataclass(frozen=True)
class Partition:
    """What we need of a partition.

    Attributes:
        name: its name.
        minutes: its longest time limit; None for none.
        default: whether jobs that name none go there.
    """

    name: str
    minutes: float | None
    default: bool


def partitions(text: str) -> list[Partition]:
    """Read what ``scontrol show partition --oneliner`` printed."""
    found = []
    for line in text.splitlines():
        fields = dict(word.split("=", 1) for word in line.split() if "=" in word)
        if "PartitionName" in fields:
            limit = minutes(fields.get("MaxTime", "UNLIMITED"))
            found.append(Partition(fields["PartitionName"], limit, fields.get("Default") == "YES"))
    return found


def minutes(limit: str) -> float | None:
    """A time limit as Slurm writes it, [DAYS-]HOURS:MINUTES:SECONDS, in minutes; None for none."""
    days, _, clock = limit.rpartition("-")
    try:
        hours, middle, seconds = (int(part) for part in clock.split(":"))
        return 1440 * int(days or 0) + 60 * hours + middle + seconds / 60
    except ValueError:
        return None  # UNLIMITED, NONE


def longest(known: Iterable[Partition], names: str | None) -> tuple[str, float] | None:
    """The partition with the longest limit of those that a job may go to; None where there is no limit to keep.

    Args:
        known: all partitions.
        names: one or more, divided by commas; None for the default.
    """
    wanted = names.split(",") if names else None
    found = [one for one in known if (one.name in wanted if wanted else one.default)]
    limits = [(one.name, one.minutes) for one in found if one.minutes is not None]
    return max(limits, key=lambda pair: pair[1]) if limits and len(limits) == len(found) else None
