"""Compare all variants with the baseline and say which one wins.

Writes one row a variant: perplexity with its protocol, the behaviour per scorer, the paired change with its 95 %
interval and Holm-adjusted p value, degeneration, and a flag on variants whose language is broken. Broken variants and
controls never win; the winner must reduce the behaviour (interval below 0) within the perplexity budget.
"""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this stage."""
    from excise.config.evaluation import Comparing
    from excise.config.options import add_options

    parser.add_argument("--baseline", type=Path, required=True, help="evaluation of the unpruned model, JSON")
    parser.add_argument("--evaluations", type=Path, nargs="+", required=True, help="evaluation of each variant, JSON")
    parser.add_argument(
        "--selections", type=Path, nargs="+", required=True, help="unit list of each variant, in the same order"
    )
    parser.add_argument("--scorer", help="primary scorer: the one that decides (default: the evaluations' first)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the resampling (default 0)")
    add_options(parser, Comparing)
    parser.add_argument(
        "--broken-fluency-ratio",
        type=float,
        default=2.0,
        help="broken if the perplexity of its generations changes by more than this factor, up or down (default 2)",
    )
    parser.add_argument(
        "--broken-distinct-ratio",
        type=float,
        default=0.7,
        help="broken if distinct-2 falls below this multiple of the baseline's (default 0.7)",
    )
    parser.add_argument(
        "--broken-repetitive-rise",
        type=float,
        default=0.1,
        help="broken if the share of repetitive generations rises by more than this (default 0.1)",
    )
    parser.add_argument(
        "--broken-empty-rise",
        type=float,
        default=0.1,
        help="broken if the share of empty generations rises by more than this (default 0.1)",
    )
    parser.add_argument("--csv", type=Path, required=True, help="table to write, CSV")
    parser.add_argument("--json", type=Path, required=True, help="summary to write, JSON")


def run(arguments: argparse.Namespace) -> None:
    """Read the evaluations, compare, write the summary."""
    from dataclasses import asdict, fields

    from excise.artefacts import sha256_file, write_json
    from excise.provenance import provenance
    from excise.reporting.inputs import read_variants
    from excise.reporting.summary import Limits, summarise, table
    from excise.reporting.tables import write_csv

    limits = Limits(**{field.name: getattr(arguments, field.name) for field in fields(Limits)})
    baseline, evaluations, selections = read_variants(arguments.baseline, arguments.evaluations, arguments.selections)
    body = summarise(
        baseline,
        evaluations,
        selections,
        primary=arguments.scorer,
        limits=limits,
        seed=arguments.seed,
        resamples=arguments.resamples,
    )
    settings = {
        "baseline": sha256_file(arguments.baseline),
        "evaluations": [sha256_file(path) for path in arguments.evaluations],
        "selections": [sha256_file(path) for path in arguments.selections],
        "scorer": body["primary"],
        "seed": arguments.seed,
        "resamples": arguments.resamples,
        "limits": asdict(limits),
    }
    meta = provenance("summary", settings, packages=("numpy", "scipy"), model=baseline["meta"]["model"])
    write_json(arguments.json, meta, body)
    write_csv(arguments.csv, *table(body))
