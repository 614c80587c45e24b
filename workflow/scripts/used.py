"""Print what the jobs of each rule asked for and what they used: ``python workflow/scripts/used.py [logs/slurm]``.

Read from the logs of a run through Slurm; needs no accounting.
"""

import re
import sys
from dataclasses import dataclass
from pathlib import Path

from excise.reporting.inputs import TOOK

WRAPPER = 150
"""MB that the Snakemake around a job takes; its stage does not see it."""


@dataclass
class Use:
    """Asked and used by the jobs of one rule: memory in MB, time in minutes; the largest of each."""

    jobs: int = 0
    asked_mb: int = 0
    used_mb: int = 0
    asked_min: int = 0
    used_min: float = 0


def uses(logs: Path) -> dict[str, Use]:
    """What each rule asked and used. Jobs that failed are left out."""
    found: dict[str, Use] = {}
    for path in sorted(logs.rglob("*.log")):
        text = path.read_text(errors="replace")
        asked = re.search(r"^ +resources: .*\bmem_mb=(\d+).*\bruntime=(\d+)", text, re.MULTILINE)
        took = TOOK.search(text)
        if asked is None or took is None:
            continue
        use = found.setdefault(path.relative_to(logs).parts[0].removeprefix("rule_"), Use())
        use.jobs += 1
        use.asked_mb = max(use.asked_mb, int(asked[1]))
        use.asked_min = max(use.asked_min, int(asked[2]))
        use.used_mb = max(use.used_mb, int(took[2]) + WRAPPER)
        use.used_min = max(use.used_min, float(took[1]) / 60)
    return found


def main() -> None:
    """Print the table."""
    logs = Path(sys.argv[1] if len(sys.argv) > 1 else "logs/slurm")
    found = uses(logs)
    if not found:
        sys.exit(f"{logs}: no logs of jobs that succeeded; run this where Snakemake was started")
    print(f"{'rule':<18}{'jobs':>5}{'asked MB':>10}{'used MB':>9}{'asked min':>11}{'used min':>10}")
    for rule, use in sorted(found.items()):
        print(f"{rule:<18}{use.jobs:>5}{use.asked_mb:>10}{use.used_mb:>9}{use.asked_min:>11}{use.used_min:>10.1f}")
    print("Lower a request: --set-resources RULE:mem_mb=MB RULE:runtime=MINUTES, or set-resources in your own profile.")


if __name__ == "__main__":
    main()
