"""Did it help to protect a task's heads? Paired differences between variants of one experiment, as a table.

    python -m benchmarks.protection results/circuit-protect/SmolLM2-135M-Instruct

Variants are called METHOD-PATTERN, METHOD-circuit-PATTERN and METHOD-other-PATTERN. For every metric: the figure of
each variant, and what protecting the circuit's heads changes against protecting nothing, and against as many other
heads, on the same items, with 95 % intervals.
"""

import argparse
import re
from pathlib import Path

from excise.comparison import compare
from excise.tasks.files import read_measurements
from excise.tasks.measurement import Measured, Metric

METRICS = ("logit_difference", "accuracy", "perplexity")


def metrics(measured: Measured) -> dict[str, tuple[Metric, bool]]:
    """Metrics of a variant by address, and whether their items are serial."""
    return {
        f"{one.name}.{name}": (metric, one.serial)
        for one in measured.measurements
        for name, metric in one.metrics.items()
        if name in METRICS
    }


def main() -> None:
    """Print a row for every method, pattern and metric."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="results of a model, with variants/ in it")
    folder = parser.parse_args().folder
    found = {path.parent.name: metrics(read_measurements(path)) for path in folder.glob("variants/*/measurements.json")}
    columns = (
        "pruned",
        "metric",
        "nothing protected",
        "circuit",
        "other heads",
        "circuit - nothing",
        "circuit - other",
    )
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    for variant in sorted(found):
        parts = re.fullmatch(r"(.+)-circuit-(.+)", variant)
        if parts is None:
            continue
        method, pattern = parts.groups()
        for address, (protected, serial) in found[variant].items():
            cells = [f"{method} {pattern}", address]
            others = [found[name][address][0] for name in (f"{method}-{pattern}", f"{method}-other-{pattern}")]
            cells += [f"{metric.figure:.2f}" for metric in (others[0], protected, others[1])]
            for other in others:
                change = compare(other, protected, serial=serial, seed=0)
                low, high = change.interval or (float("nan"),) * 2
                cells.append(f"{change.difference:+.2f} [{low:+.2f}, {high:+.2f}]")
            print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
