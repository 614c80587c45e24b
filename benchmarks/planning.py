"""Processor time of planning: a dry run of the demo with so many unit lists more, about seven jobs each.

    python -m benchmarks.planning 100 700

Planning must stay linear, below 6 ms per further job.
"""

import re
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

REPOSITORY = Path(__file__).parent.parent


def plan(lists: int) -> tuple[int, float]:
    """Jobs of a plan with so many unit lists, and the seconds that it took."""
    config = yaml.safe_load((REPOSITORY / "config.yaml").read_text(encoding="utf-8"))
    counts = list(range(1, lists + 1))
    config["variants"] = {"lrp": {"method": "lrp", "target": "toxic", "retain": "c4", "count": counts}}
    config["evaluation"]["resamples"] = 40 * lists + 1000
    config["export"] = None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "many.yaml"
        path.write_text(yaml.safe_dump(config), encoding="utf-8")
        command: list[str | Path] = [Path(sys.executable).parent / "snakemake", "--snakefile", REPOSITORY / "Snakefile"]
        command += ["--directory", folder, "--configfile", path, "--dry-run", "--quiet", "rules"]
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
    total = re.search(r"^total +(\d+)$", output, re.MULTILINE)
    if total is None:
        raise SystemExit(f"no table of jobs:\n{output[-2000:]}")
    return int(total[1]), after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main(sizes: list[int]) -> None:
    """Print a line per size, and from the second on what a further job costs."""
    earlier: tuple[int, float] | None = None
    for lists in sizes:
        jobs, seconds = plan(lists)
        said = f"{lists} lists, {jobs} jobs, {seconds:.1f} s"
        if earlier is not None:
            said += f", {1000 * (seconds - earlier[1]) / (jobs - earlier[0]):.2f} ms per further job"
        print(said, flush=True)
        earlier = jobs, seconds


if __name__ == "__main__":
    main([int(size) for size in sys.argv[1:]] or [100, 700])
