"""Write the report: one self-contained HTML page, the data behind its plots, and a picture.

The page says what was found, how sure it is and what it cost, with tables, plots and sample generations. It needs no
network and no script.
"""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this stage."""
    parser.add_argument("--summary", type=Path, required=True, help="summary.json of excise summary")
    parser.add_argument(
        "--evaluations",
        type=Path,
        nargs="+",
        required=True,
        help="evaluations, JSON: of the unpruned model first, then of each variant",
    )
    parser.add_argument(
        "--selections", type=Path, nargs="+", required=True, help="unit list of each variant, in the same order"
    )
    parser.add_argument(
        "--generations",
        type=Path,
        nargs="+",
        default=[],
        help="generations of the unpruned model and of each variant, in the same order (default: no samples)",
    )
    parser.add_argument(
        "--scores", type=Path, nargs="+", default=[], help="their scores by the primary scorer, in the same order"
    )
    parser.add_argument(
        "--lenses", type=Path, nargs="*", default=[], help="tokens of selected neurons, JSON of excise logit-lens"
    )
    parser.add_argument(
        "--tunings", type=Path, nargs="*", default=[], help="comparisons on tuning prompts, NAME.json of excise summary"
    )
    parser.add_argument("--settings", type=Path, required=True, help="the experiment's configuration, JSON")
    parser.add_argument("--model", type=Path, help="facts of the model, JSON of excise inspect (default: not shown)")
    parser.add_argument("--timings", type=Path, help="folder of the logs of the stages (default: no run times)")
    parser.add_argument("--samples", type=int, default=12, help="prompts to show generations of (default 12)")
    parser.add_argument(
        "--seed", type=int, default=0, help="seed of the samples and of intervals by category (default 0)"
    )
    parser.add_argument("--output", type=Path, required=True, help="report to write, HTML")
    parser.add_argument("--data", type=Path, help="folder for the data behind each plot, CSV (default: not written)")
    parser.add_argument(
        "--picture", type=Path, help="also write the trade-off plot, .svg or .png (default: not written)"
    )


def run(arguments: argparse.Namespace) -> None:
    """Read everything, draw, write the page."""
    from excise.artefacts import read_json, replacing, sha256_file
    from excise.errors import ExciseError, unknown
    from excise.provenance import provenance
    from excise.reporting import capability
    from excise.reporting.figures import figures
    from excise.reporting.inputs import read_scored, read_timings, read_variants
    from excise.reporting.page import page
    from excise.reporting.samples import pick
    from excise.reporting.tables import write_csv
    from excise.reporting.words import shown

    if arguments.picture and arguments.picture.suffix not in (".svg", ".png"):
        raise unknown("picture format", arguments.picture.suffix, (".svg", ".png"), where="--picture")
    expected = len(arguments.evaluations)
    for option in ("generations", "scores"):
        given = len(getattr(arguments, option))
        if given not in (0, expected) or given != len(arguments.generations):
            raise ExciseError(
                f"--{option}: {given} files for {expected} evaluations; give one for each to both --generations and "
                "--scores, or none to either"
            )
    summary = read_json(arguments.summary)
    config = read_json(arguments.settings)
    first, *others = arguments.evaluations
    baseline, evaluations, selections = read_variants(first, others, arguments.selections)
    used = summary["meta"]["settings"]
    if [used["baseline"], *used["evaluations"]] != [sha256_file(path) for path in arguments.evaluations]:
        raise ExciseError(
            f"{arguments.summary}: was made from other evaluations than those given, or in another order; "
            "run excise summary again"
        )
    names = [evaluation["variant"] for evaluation in evaluations]
    by_name = dict(zip(names, evaluations, strict=True))
    lists = dict(zip(names, selections, strict=True))
    origins = [summary["meta"], baseline["meta"], *(evaluation["meta"] for evaluation in evaluations)]
    samples = []
    if arguments.generations and (name := shown(summary)) is not None:
        index = 1 + names.index(name)
        first_origins, before = read_scored(arguments.generations[0], arguments.scores[0])
        other_origins, after = read_scored(arguments.generations[index], arguments.scores[index])
        origins += [*first_origins, *other_origins]
        samples = pick(before, after, count=arguments.samples, seed=arguments.seed)
    drawn = figures(summary, baseline, by_name, lists, seed=arguments.seed)
    timings = read_timings(arguments.timings) if arguments.timings else []
    if arguments.data:
        for figure in drawn:
            write_csv(arguments.data / f"{figure.name}.csv", figure.columns, figure.rows)
        if summary["capability"]:
            write_csv(arguments.data / "capability.csv", *capability.table(summary))
    if arguments.picture:
        with replacing(arguments.picture) as file:
            file.write(drawn[0].picture(arguments.picture.suffix[1:]))
    settings = {"samples": arguments.samples, "seed": arguments.seed, "summary": sha256_file(arguments.summary)}
    made = provenance("report", settings, packages=("matplotlib", "numpy", "scipy"))
    text = page(
        summary,
        drawn,
        config=config,
        facts=read_json(arguments.model) if arguments.model else {},
        samples=samples,
        lenses=[read_json(path) for path in arguments.lenses],
        tunings={path.stem: read_json(path) for path in arguments.tunings},
        timings=timings,
        origins=[*origins, made],
    )
    with replacing(arguments.output) as file:
        file.write(text.encode())
