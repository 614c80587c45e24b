"""Compare smaller encoders with the dense one, query by query: what share of each metric do they keep?

A variant keeps enough where the lower end of the interval of its share is at least ``--at-least``.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from excise.artefacts import Json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this stage."""
    from excise.config.options import add_options
    from excise.config.retrieval import Keeping

    parser.add_argument("measurements", type=Path, nargs="+", help="files of excise retrieve, the dense model's too")
    add_options(parser, Keeping)
    parser.add_argument("--seed", type=int, default=0, help="seed of the resampling of queries (default 0)")
    parser.add_argument("--output", type=Path, required=True, help="comparison, JSON")


def run(arguments: argparse.Namespace) -> None:
    """Read, compare, write, print a table."""
    from excise.artefacts import sha256_file, write_json
    from excise.comparison import CONFIDENCE, compare, keeps
    from excise.errors import ExciseError
    from excise.provenance import provenance
    from excise.tasks.files import read_measurements
    from excise.tasks.measurement import check_comparable, find, merged

    found = merged(map(read_measurements, arguments.measurements))
    (dense, others) = ([one for one in found if (one.about.kind == "baseline") is base] for base in (True, False))
    if len(dense) != 1:
        names = ", ".join(one.variant for one in dense) or "none"
        raise ExciseError(f"expected the measurements of exactly one dense model, found {names}")
    rows = []
    for other in others:
        check_comparable(dense[0], other)
        for one in dense[0].measurements:
            for name, before in one.metrics.items():
                if before.direction != "higher":  # cost is not kept
                    continue
                change = compare(before, find(other, f"{one.name}.{name}")[1], seed=arguments.seed)
                share = None if change.relative is None else 1 + change.relative
                interval = change.relative_interval and [1 + end for end in change.relative_interval]
                rows.append(
                    {
                        "variant": other.variant,
                        "metric": f"{one.name}.{name}",
                        "dense": change.before,
                        "figure": change.after,
                        "kept": share,
                        "interval": interval,
                        "keeps_enough": keeps(change, arguments.at_least),
                        "items": change.items,
                    }
                )
    settings = {
        "measurements": [sha256_file(path) for path in arguments.measurements],
        "at_least": arguments.at_least,
        "confidence": CONFIDENCE,
        "seed": arguments.seed,
    }
    write_json(arguments.output, provenance("retention", settings, packages=("numpy", "scipy")), {"rows": rows})
    print(table(rows, arguments.at_least))


def table(rows: "list[Json]", at_least: float) -> str:
    """The comparison as a Markdown table, one row per variant and metric."""
    lines = [
        f"| variant | metric | dense | value | kept, 95 % interval | at least {100 * at_least:g} % |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        kept = "" if row["kept"] is None else f"{100 * row['kept']:.1f} %"
        if row["interval"]:
            kept += " [" + ", ".join(f"{100 * end:.1f}" for end in row["interval"]) + "]"
        verdict = "yes" if row["keeps_enough"] else "not shown"
        lines.append(
            f"| {row['variant']} | {row['metric']} | {row['dense']:.4f} | {row['figure']:.4f} | {kept} | {verdict} |"
        )
    return "\n".join(lines)
