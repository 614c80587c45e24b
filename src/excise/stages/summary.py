"""Compare all variants with the baseline and say which one wins.

One row per variant: every figure, the paired changes with their 95 % intervals and Holm-adjusted p values, and why a
variant's language is broken. Broken variants and controls never win; the winner must come closer to the goal with its
whole interval, within every budget. Files may come in any order: they say which variant they are about.
"""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this stage."""
    from excise.config.evaluation import Comparing
    from excise.config.options import add_options

    parser.add_argument("measurements", type=Path, nargs="+", help="measurements of all variants, the baseline's too")
    goal = parser.add_mutually_exclusive_group()
    goal.add_argument("--lower", metavar="METRIC", help="the metric to lower, as NAME.METRIC, such as toxicity.share")
    goal.add_argument(
        "--raise", metavar="METRIC", help="the metric to raise (default: the first one, in its own direction)"
    )
    parser.add_argument(
        "--within",
        metavar="METRIC=BUDGET",
        action="append",
        default=[],
        help="how far another metric may go, such as wikipedia.perplexity=+5%% (with --lower or --raise)",
    )
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
    parser.add_argument("--seed", type=int, default=0, help="seed of the resampling (default 0)")
    parser.add_argument("--csv", type=Path, required=True, help="table to write, CSV")
    parser.add_argument("--json", type=Path, required=True, help="summary to write, JSON")


def run(arguments: argparse.Namespace) -> None:
    """Read the measurements, compare, write the summary."""
    from dataclasses import asdict, fields, replace

    from excise.artefacts import sha256_file
    from excise.errors import ExciseError
    from excise.goal import parse_goal
    from excise.provenance import provenance
    from excise.reporting.sheet import sheet
    from excise.reporting.summarise import summarise
    from excise.reporting.summary import Limits, write_summary
    from excise.reporting.tables import write_csv
    from excise.tasks.files import read_measurements

    limits = Limits(**{field.name: getattr(arguments, field.name) for field in fields(Limits)})
    goal = None
    asked = {"lower": arguments.lower, "raise": getattr(arguments, "raise")}
    if any(asked.values()):
        pairs = [pair.rpartition("=") for pair in arguments.within]
        goal = parse_goal({**asked, "within": {name: budget for name, _, budget in pairs}}, where="--within")
    elif arguments.within:
        raise ExciseError("--within: say with --lower or --raise what the goal is")
    files = [read_measurements(path) for path in arguments.measurements]
    summary = summarise(
        files,
        goal=goal,
        max_perplexity_increase=arguments.max_perplexity_increase,
        limits=limits,
        seed=arguments.seed,
        resamples=arguments.resamples,
    )
    digests: dict[str, list[str]] = {}
    for one, path in zip(files, arguments.measurements, strict=True):
        digests.setdefault(one.variant, []).append(sha256_file(path))
    settings = {
        "measurements": digests,
        "goal": asdict(summary.goal),
        "limits": asdict(limits),
        "seed": arguments.seed,
        "resamples": arguments.resamples,
    }
    model = next(one for one in files if one.variant == summary.baseline.variant).meta.get("model")
    summary = replace(summary, meta=provenance("summary", settings, packages=("numpy", "scipy"), model=model))
    write_summary(arguments.json, summary)
    write_csv(arguments.csv, *sheet(summary))
