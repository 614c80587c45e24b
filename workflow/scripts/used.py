"""Print what the jobs of each rule asked for and what they used: ``python workflow/scripts/used.py [logs/slurm]``.

Read from the logs of a run through Slurm and from benchmark files; needs no accounting.
"""

import csv
import re
import sys
from dataclasses import dataclass
from pathlib import Path

WRAPPERS = 300
"""MB that the two Snakemakes around a job take; the benchmark file does not see them."""


@dataclass
class Use:
    """Asked and used by the jobs of one rule: memory in MB, time in minutes; the largest of each."""

    jobs: int = 0
    asked_mb: int = 0
    used_mb: float = 0
    asked_min: int = 0
    used_min: float = 0


def uses(logs: Path) -> dict[str, Use]:
    """What each rule asked and used. Jobs without a benchmark file, or whose file is gone, are left out."""
    found: dict[str, Use] = {}
    for path in sorted(logs.rglob("*.log")):
        text = path.read_text(errors="replace")
        benchmark = re.search(r"^ +benchmark: (.+)$", text, re.MULTILINE)
        asked = re.search(r"^ +resources: .*", text, re.MULTILINE)
        if benchmark is None or asked is None or not Path(benchmark[1]).is_file():
            continue
        with open(benchmark[1], encoding="utf-8", newline="") as file:
            measured = list(csv.DictReader(file, delimiter="\t"))[-1]
        memory, runtime = (re.search(rf"\b{name}=(\d+)", asked[0]) for name in ("mem_mb", "runtime"))
        use = found.setdefault(path.relative_to(logs).parts[0].removeprefix("rule_"), Use())
        use.jobs += 1
        use.asked_mb = max(use.asked_mb, int(memory[1]) if memory else 0)
        use.asked_min = max(use.asked_min, int(runtime[1]) if runtime else 0)
        use.used_min = max(use.used_min, float(measured["s"]) / 60)
        if measured["max_rss"] not in ("-", "NA", ""):
            use.used_mb = max(use.used_mb, float(measured["max_rss"]) + WRAPPERS)
    return found


def main() -> None:
    """Print the table."""
    logs = Path(sys.argv[1] if len(sys.argv) > 1 else "logs/slurm")
    found = uses(logs)
    if not found:
        sys.exit(f"{logs}: no logs of jobs with a benchmark file; run this where Snakemake was started")
    print(f"{'rule':<18}{'jobs':>5}{'asked MB':>10}{'used MB':>9}{'asked min':>11}{'used min':>10}")
    for rule, use in sorted(found.items()):
        print(f"{rule:<18}{use.jobs:>5}{use.asked_mb:>10}{use.used_mb:>9.0f}{use.asked_min:>11}{use.used_min:>10.1f}")
    print("Lower a request: --set-resources RULE:mem_mb=MB RULE:runtime=MINUTES, or set-resources in your own profile.")


if __name__ == "__main__":
    main()
