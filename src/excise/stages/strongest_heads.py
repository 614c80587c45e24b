"""Write the strongest heads of a task as a unit list, or as many others drawn at random: what excise compress protects.

Ranked by absolute exact effect, of excise patch.
"""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this stage."""
    parser.add_argument("--nodes", type=Path, required=True, help="effects of heads, JSON of excise patch")
    parser.add_argument("--share", type=float, required=True, help="share of all heads, above 0 and below 1")
    parser.add_argument("--random", type=int, metavar="SEED", help="draw as many of the other heads, with this seed")
    parser.add_argument("--output", type=Path, required=True, help="unit list, JSON")


def run(arguments: argparse.Namespace) -> None:
    """Read, rank or draw, write."""
    import logging
    import re

    from excise.artefacts import read_json, sha256_file, write_json
    from excise.circuits.agreement import strongest_and_others
    from excise.errors import ExciseError
    from excise.provenance import provenance

    found = read_json(arguments.nodes)
    if found.get("meta", {}).get("stage") != "patch":
        raise ExciseError(f"{arguments.nodes}: not written by excise patch")
    heads = [row for row in found["nodes"] if row["node"].startswith("a")]
    count = round(arguments.share * len(heads))
    if not 0 < count < len(heads):
        raise ExciseError(
            f"--share {arguments.share:g} is {count} of {len(heads)} heads: to protect none or all of them says nothing"
        )
    chosen = strongest_and_others([row["exact"] for row in heads], count, seed=arguments.random)
    graph = found["meta"]["graph"]
    rows = []
    for row in (heads[place] for place in chosen):
        layer, head = map(int, re.findall(r"\d+", row["node"]))
        rows.append({"layer": layer, "head": head, "score": row["exact"]})
    settings = {"nodes": sha256_file(arguments.nodes), "share": arguments.share, "random": arguments.random}
    method = "patching" if arguments.random is None else "random"
    task = found["meta"]["pairs"]["task"]
    write_json(
        arguments.output,
        provenance("strongest-heads", settings, model=found["meta"]["model"], pairs=found["meta"]["pairs"]),
        {
            "name": f"{task}-{method}",
            "method": method,
            "control": arguments.random is not None,
            "unit": "head",
            "layers": graph["layers"],
            "units_per_layer": graph["heads"],
            "scale": 0.0,
            "ablation": "zero",
            "rows": rows,
        },
    )
    logging.getLogger(__name__).info("%d of %d heads", count, len(heads))
