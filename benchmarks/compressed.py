"""Methods of compression beside each other: a table of one experiment's summary, and how long each took.

    python -m benchmarks.compressed results/compress-smollm2/SmolLM2-135M-Instruct

Perplexities, with the paired 95 % interval of their rise in percent; right answers to each task in percent, with the
interval of the change in points; tokens per second of prefill as a multiple of the unpruned model's; seconds of the job
that made the variant, from its log.
"""

import argparse
import re
from pathlib import Path

from excise.artefacts import Json, read_json


def perplexity(cell: Json) -> str:
    """A perplexity and its rise."""
    change = cell["change"]
    if change is None or change["relative_interval"] is None:
        return f"{cell['figure']:,.2f}"
    if change["relative"] > 100:  # a broken model
        return f"{cell['figure']:,.0f}"
    low, high = (100 * end for end in change["relative_interval"])
    return f"{cell['figure']:,.2f} [{low:+,.0f}, {high:+,.0f}] %"


def accuracy(cell: Json) -> str:
    """Right answers in per cent and their change in points."""
    change = cell["change"]
    if change is None:
        return f"{100 * cell['figure']:.0f}"
    low, high = (100 * end for end in change["interval"])
    return f"{100 * cell['figure']:.0f} [{low:+.0f}, {high:+.0f}]"


def seconds(folder: Path, variant: str) -> str:
    """Seconds of the job that made a variant."""
    for log in folder.glob(f"logs/*-{variant}.log"):
        if took := re.search(r"took ([\d.]+) s", log.read_text()):
            return f"{float(took[1]):,.0f}"
    return ""


def main() -> None:
    """Print a row per variant."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="results of a model, with summary.json in it")
    folder = parser.parse_args().folder
    summary = read_json(folder / "summary.json")
    texts = [column for column in summary["columns"] if column["metric"] == "perplexity"]
    tasks = [column for column in summary["columns"] if column["metric"] == "accuracy"]
    named = [column["label"] for column in texts] + [f"{column['label']}, %" for column in tasks]
    head = ["variant", *named, "MB", "prefill", "seconds"]
    print(f"| {' | '.join(head)} |\n|{'---|' * len(head)}")
    for row in summary["variants"]:
        cells = row["cells"]
        faster = cells["cost.prefill_ratio"]
        cost = [f"{cells['cost.bytes']['figure']:.0f}", f"{faster['figure']:.2f}"]
        told = [perplexity(cells[column["address"]]) for column in texts]
        told += [accuracy(cells[column["address"]]) for column in tasks]
        print(f"| {' | '.join([row['variant'], *told, *cost, seconds(folder, row['variant'])])} |")


if __name__ == "__main__":
    main()
