"""Write the report on smaller encoders: one HTML file, and the data behind each plot."""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this stage."""
    parser.add_argument("--summary", type=Path, required=True, help="summary.json of excise summary")
    parser.add_argument(
        "--measurements", type=Path, nargs="+", required=True, help="the measurements that it was made from"
    )
    parser.add_argument("--settings", type=Path, required=True, help="the experiment's configuration, JSON")
    parser.add_argument("--timings", type=Path, help="folder of the logs of the stages (default: no run times)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the intervals at equal time (default 0)")
    parser.add_argument("--output", type=Path, required=True, help="report to write, HTML")
    parser.add_argument("--data", type=Path, help="folder for the data behind each plot, CSV (default: not written)")


def run(arguments: argparse.Namespace) -> None:
    """Read everything, draw, write the page."""
    from excise.artefacts import read_json, replacing, sha256_file
    from excise.provenance import provenance
    from excise.reporting.encoder_page import page
    from excise.reporting.inputs import read_all, read_timings
    from excise.reporting.tables import write_data

    found = read_all(arguments.summary, arguments.measurements, [])
    settings = {"seed": arguments.seed, "summary": sha256_file(arguments.summary)}
    text, plots = page(
        found,
        settings=read_json(arguments.settings),
        timings=read_timings(arguments.timings) if arguments.timings else [],
        made=provenance("report-encoders", settings, packages=("matplotlib", "numpy", "scipy")),
        seed=arguments.seed,
    )
    if arguments.data:
        write_data(arguments.data, plots)
    with replacing(arguments.output) as file:
        file.write(text.encode())
