"""A scorer that writes down each time it works, and fails or waits when the test asks for it.

Files in the folder EXCISE_FAULTS: the first job that finds ``exit-once`` fails, the first that finds ``memory-once``
takes 4 GiB, the first that finds ``slow-once`` takes ten minutes; ``hold`` keeps jobs waiting; ``ledger`` gets a line at start and end of each work.
"""

import hashlib
import os
import time
from pathlib import Path

from tests.workflow.tiny_scorer import scores as tiny_scores


def claimed(fault: Path) -> bool:
    """Whether this process is the one that shall suffer the fault."""
    try:
        fault.unlink()
    except FileNotFoundError:
        return False
    return True


def scores(texts: list[str]) -> list[float]:
    """The tiny scorer's numbers; nothing else outside of Slurm, where a scorer is tried."""
    job = os.environ.get("SLURM_JOB_ID")
    if job is None:
        return tiny_scores(texts)
    folder = Path(os.environ["EXCISE_FAULTS"])
    work = hashlib.sha256("\0".join(texts).encode()).hexdigest()[:8]

    def write(event: str) -> None:
        with open(folder / "ledger", "a") as ledger:
            ledger.write(f"{work} {job} {event} {os.environ.get('HF_HUB_OFFLINE')} {os.environ.get('LOADEDMODULES')}\n")

    write("start")
    if claimed(folder / "exit-once"):
        raise RuntimeError("a fault that a test asked for")
    if claimed(folder / "memory-once"):
        taken = bytearray(b"x") * (4 << 30)
        time.sleep(30)
        del taken
    if claimed(folder / "slow-once"):
        time.sleep(600)
    while (folder / "hold").exists():
        time.sleep(0.1)
    write("end")
    return tiny_scores(texts)
