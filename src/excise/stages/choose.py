"""Take the best of several unit lists that were compared on tuning prompts.

Reads the comparison (excise summary) and the lists in it. The best is the one that comes closest to the goal, among
those that are not broken and within the budgets; of equals, the cheaper one. Whether its gain is established is not
asked here: that is judged on other prompts, once.
"""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this stage."""
    parser.add_argument("--summary", type=Path, required=True, help="comparison on the tuning prompts, JSON")
    parser.add_argument("--units", type=Path, nargs="+", required=True, help="the unit lists compared")
    parser.add_argument("--name", required=True, help="what to call the choice in tables")
    parser.add_argument("--output", type=Path, required=True, help="the chosen unit list, JSON")


def run(arguments: argparse.Namespace) -> None:
    """Read the comparison, choose, write the list."""
    import logging

    from excise.artefacts import sha256_file, write_json
    from excise.edits.unit_list import read_units
    from excise.errors import ExciseError
    from excise.provenance import provenance
    from excise.reporting.summary import read_summary
    from excise.reporting.tuning import chosen

    summary = read_summary(arguments.summary)
    lists = {sha256_file(path): path for path in arguments.units}
    compared = {row.units: row.variant for row in summary.variants if row.units is not None}
    if compared.keys() != lists.keys():
        raise ExciseError(f"{arguments.summary}: compares other unit lists than those given; run excise summary again")
    best = chosen(summary, where=str(arguments.summary))
    selection = read_units(lists[best.units or ""])
    meta = selection.pop("meta")
    settings = {
        "summary": sha256_file(arguments.summary),
        "units": sorted(lists),
        "selected": meta["settings"],
    }
    kept = {key: meta[key] for key in ("method", "model", "attribution", "references", "mean") if key in meta}
    write_json(
        arguments.output,
        provenance("choose", settings, **kept),
        {
            **selection,
            "name": arguments.name,
            "chosen": {
                "variant": best.variant,
                "selection": selection["name"],
                "candidates": [row.variant for row in summary.variants if row.units is not None],
            },
        },
    )
    logging.getLogger(__name__).info("%s: %s", arguments.name, best.variant)
