"""Write the report: one self-contained HTML page, the data behind its plots, and a picture.

The page says what was found, how sure it is and what it cost, with tables, plots and sample generations. It needs no
network and no script.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from excise.artefacts import Json
    from excise.reporting.inputs import Found


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this stage."""
    parser.add_argument("--summary", type=Path, required=True, help="summary.json of excise summary")
    parser.add_argument(
        "--measurements", type=Path, nargs="+", required=True, help="the measurements that it was made from"
    )
    parser.add_argument("--units", type=Path, nargs="*", default=[], help="unit lists of the variants (default: none)")
    parser.add_argument(
        "--generations", type=Path, nargs="*", default=[], help="generations to show samples of (default: no samples)"
    )
    parser.add_argument("--scores", type=Path, nargs="*", default=[], help="their scores by the scorer that decides")
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
    from excise.errors import unknown
    from excise.provenance import provenance
    from excise.reporting.figures import figures
    from excise.reporting.inputs import read_all, read_timings
    from excise.reporting.page import page
    from excise.reporting.summary import read_summary
    from excise.reporting.tables import write_data

    if arguments.picture and arguments.picture.suffix not in (".svg", ".png"):
        raise unknown("picture format", arguments.picture.suffix, (".svg", ".png"), where="--picture")
    found = read_all(arguments.summary, arguments.measurements, arguments.units)
    samples, origins = _samples(arguments, found)
    drawn = figures(found.summary, found.measured, found.units, seed=arguments.seed)
    if arguments.data:
        write_data(arguments.data, drawn)
    if arguments.picture and drawn:
        with replacing(arguments.picture) as file:
            file.write(drawn[0].picture(arguments.picture.suffix[1:]))
    settings = {"samples": arguments.samples, "seed": arguments.seed, "summary": sha256_file(arguments.summary)}
    made = provenance("report", settings, packages=("matplotlib", "numpy", "scipy"))
    text = page(
        found.summary,
        drawn,
        config=read_json(arguments.settings),
        facts=read_json(arguments.model) if arguments.model else {},
        samples=samples,
        lenses=[read_json(path) for path in arguments.lenses],
        tunings={path.stem: read_summary(path) for path in arguments.tunings},
        timings=read_timings(arguments.timings) if arguments.timings else [],
        origins=[*found.origins, *origins, made],
    )
    with replacing(arguments.output) as file:
        file.write(text.encode())


def _samples(arguments: argparse.Namespace, found: "Found") -> "tuple[list[Json], list[Json]]":
    """Generations of the unpruned model and of the variant looked at closely, and where they come from."""
    from excise.reporting.inputs import by_digest, read_scored
    from excise.reporting.samples import pick
    from excise.reporting.words import shown

    name = shown(found.summary)
    if not arguments.generations or name is None:
        return [], []
    generations, scores = by_digest(arguments.generations), by_digest(arguments.scores)
    both, origins = [], []
    for variant in (found.summary.baseline.variant, name):
        metas, rows = read_scored(found.measured[variant], generations, scores)
        both.append(rows)
        origins += metas
    return pick(*both, count=arguments.samples, seed=arguments.seed), origins
