"""Write the report of a task's circuit: one HTML file, and the data behind each plot."""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this stage."""
    parser.add_argument("--name", required=True, help="what to call the task")
    parser.add_argument("--settings", type=Path, required=True, help="settings of the experiment, JSON")
    parser.add_argument("--pairs", type=Path, nargs=2, required=True, help="pairs that find, and pairs that judge")
    parser.add_argument("--nodes", type=Path, required=True, help="effects of nodes, of excise patch")
    parser.add_argument(
        "--curves", type=Path, nargs="+", required=True, help="of excise faithfulness --edges, one per method"
    )
    parser.add_argument("--circuits", type=Path, nargs="+", required=True, help="of excise circuit, one per size")
    parser.add_argument(
        "--judged", type=Path, nargs="+", required=True, help="of excise faithfulness --circuit, for the same circuits"
    )
    parser.add_argument("--heads", type=Path, nargs="?", help="manifest of excise remove-heads (default: none)")
    parser.add_argument("--acdc", type=Path, nargs="*", help="what excise remove-edges left, and faithfulness of it")
    parser.add_argument("--known-heads", nargs="+", default=[], help="heads that are known to carry the task, as L9H9")
    parser.add_argument("--data", type=Path, help="folder for the data behind each plot, CSV (default: not written)")
    parser.add_argument("--output", type=Path, required=True, help="report to write, HTML")


def run(arguments: argparse.Namespace) -> None:
    """Read everything, draw, write the page."""
    from excise.artefacts import read_json, read_jsonl, replacing, sha256_file
    from excise.errors import ExciseError
    from excise.provenance import provenance
    from excise.reporting.circuit_page import Study, page
    from excise.reporting.tables import write_data

    def read(path: Path, stage: str, key: str) -> dict[str, object]:
        found = read_json(path)
        if found.get("meta", {}).get("stage") != stage or key not in found:
            raise ExciseError(f"{path}: not what excise {stage} writes with {key}")
        return found

    if len(arguments.circuits) != len(arguments.judged):
        raise ExciseError(f"{len(arguments.circuits)} --circuits and {len(arguments.judged)} --judged; give as many")
    acdc = None
    if arguments.acdc:
        if len(arguments.acdc) != 2:
            raise ExciseError("--acdc: give two files, of excise remove-edges and of excise faithfulness")
        acdc = (read(arguments.acdc[0], "remove-edges", "edges"), read(arguments.acdc[1], "faithfulness", "circuit"))
    study = Study(
        name=arguments.name,
        pairs=[read_jsonl(path)[0] for path in arguments.pairs],
        nodes=read(arguments.nodes, "patch", "nodes"),
        curves=[read(path, "faithfulness", "rankings") for path in arguments.curves],
        circuits=[read(path, "circuit", "edges") for path in arguments.circuits],
        judged=[read(path, "faithfulness", "circuit") for path in arguments.judged],
        heads=read(arguments.heads, "remove-heads", "kept") if arguments.heads else None,
        acdc=acdc,
        known=arguments.known_heads,
        settings=read_json(arguments.settings),
    )
    files = [arguments.nodes, *arguments.curves, *arguments.circuits, *arguments.judged, *(arguments.acdc or [])]
    settings = {"files": [sha256_file(path) for path in files]}
    text, plots = page(study, provenance("report-circuit", settings, packages=("matplotlib", "numpy")))
    if arguments.data:
        write_data(arguments.data, plots)
    with replacing(arguments.output) as file:
        file.write(text.encode())
