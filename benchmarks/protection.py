"""Did it help to protect a task's heads? Paired differences between variants of one experiment, as a table.

    python -m benchmarks.protection results/circuit-protect/SmolLM2-135M-Instruct

Variants are called METHOD-PATTERN, METHOD-circuitSHARE-PATTERN and METHOD-otherSHARE-PATTERN, SHARE being the per cent
of the heads, and a letter behind it one of several sets of other heads. For every metric: the figure of each variant,
and what protecting the circuit's heads changes against protecting nothing, and against as many other heads (the mean of
their sets, item by item), on the same items, with 95 % intervals.
"""

import argparse
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from excise.comparison import compare
from excise.tasks.files import read_measurements
from excise.tasks.measurement import Measured, Metric

METRICS = ("logit_difference", "perplexity")
COLUMNS = ("pruned", "protected", "metric", "nothing", "circuit", "other heads", "circuit - nothing", "circuit - other")


def metrics(measured: Measured) -> dict[str, tuple[Metric, bool]]:
    """Metrics of a variant by address, and whether their items are serial."""
    return {
        f"{one.name}.{name}": (metric, one.serial)
        for one in measured.measurements
        for name, metric in one.metrics.items()
        if name in METRICS
    }


def mean(found: Sequence[Metric]) -> Metric:
    """The mean of variants, item by item: items have the same weights in all of them."""
    values = np.mean([metric.values for metric in found if metric.values is not None], axis=0)
    return Metric.of(values, found[0].weights, aggregate=found[0].aggregate, direction=found[0].direction)


def main() -> None:
    """Print a row for every method, pattern, share and metric."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="results of a model, with variants/ in it")
    parser.add_argument("--metric", help="only this one, for instance ioi.logit_difference")
    arguments = parser.parse_args()
    folder = arguments.folder
    found = {path.parent.name: metrics(read_measurements(path)) for path in folder.glob("variants/*/measurements.json")}
    print(f"| {' | '.join(COLUMNS)} |\n{'|---' * len(COLUMNS)}|")
    for variant in sorted(found):
        parts = re.fullmatch(r"(.+)-circuit(\d+)-(.+)", variant)
        if parts is None:
            continue
        method, share, pattern = parts.groups()
        sets = [name for name in sorted(found) if re.fullmatch(rf"{method}-other{share}[a-z]*-{pattern}", name)]
        for address, (protected, serial) in found[variant].items():
            if arguments.metric not in (None, address):
                continue
            nothing, others = found[f"{method}-{pattern}"][address][0], [found[name][address][0] for name in sets]
            each = ", ".join(f"{metric.figure:.2f}" for metric in others)
            cells = [
                f"{method} {pattern}",
                f"{share} %",
                address,
                f"{nothing.figure:.2f}",
                f"{protected.figure:.2f}",
                each,
            ]
            for other in (nothing, mean(others)):
                change = compare(other, protected, serial=serial, seed=0)
                low, high = change.interval or (float("nan"),) * 2
                cells.append(f"{change.difference:+.2f} [{low:+.2f}, {high:+.2f}]")
            print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
