"""Draw what was found: a heat map of heads and MLPs, and the faithfulness of circuits over their size."""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this stage."""
    parser.add_argument("--nodes", type=Path, help="effects of nodes, JSON of excise patch")
    parser.add_argument("--score", default="exact", help="what to draw of them: exact, or a method (default exact)")
    parser.add_argument("--heat-map", type=Path, help="heat map to write, .svg or .png")
    parser.add_argument("--faithfulness", type=Path, nargs="*", default=[], help="JSON files of excise faithfulness")
    parser.add_argument("--curves", type=Path, help="faithfulness over size to write, .svg or .png")


def run(arguments: argparse.Namespace) -> None:
    """Read, draw, write."""
    from collections.abc import Callable

    from excise.artefacts import read_json, replacing
    from excise.errors import ExciseError, unknown
    from excise.reporting.circuit_plots import curves, heat_map
    from excise.reporting.style import render

    if (arguments.nodes is None) != (arguments.heat_map is None):
        raise ExciseError("--nodes and --heat-map: give both or neither")
    if bool(arguments.faithfulness) != (arguments.curves is not None):
        raise ExciseError("--faithfulness and --curves: give both or neither")
    jobs: list[tuple[Path, Callable[..., object], tuple[object, ...]]] = []
    if arguments.nodes is not None:
        found = read_json(arguments.nodes)
        known = [name for name in found["nodes"][0] if name not in ("node", "name", "standard_error")]
        if arguments.score not in known:
            raise unknown("score", arguments.score, known, where="--score")
        jobs.append((arguments.heat_map, heat_map, (found["nodes"], found["meta"]["graph"], arguments.score)))
    if arguments.curves is not None:
        results = [read_json(path) for path in arguments.faithfulness]
        for path, result in zip(arguments.faithfulness, results, strict=True):
            if "rankings" not in result:
                raise ExciseError(f"{path}: judges one circuit; the curve needs excise faithfulness --edges")
            if result["meta"]["pairs"] != results[0]["meta"]["pairs"]:
                raise ExciseError(f"{path}: judged on other pairs than {arguments.faithfulness[0]}")
        jobs.append((arguments.curves, curves, (results,)))
    if not jobs:
        raise ExciseError("nothing to draw: give --nodes and --heat-map, or --faithfulness and --curves")
    for path, _, _ in jobs:
        if path.suffix not in (".svg", ".png"):
            raise ExciseError(f"{path}: a picture ends in .svg or .png")
    for path, draw, inputs in jobs:
        with replacing(path) as file:
            file.write(render(draw, *inputs, kind=path.suffix[1:]))  # type: ignore[arg-type]
