"""Take the best of several unit lists that were compared on tuning prompts.

Reads the comparison (excise summary) and the lists in it. The best is the one that reduces the behaviour most, among
those that are not broken and raise perplexity within the comparison's budget; of equals, the one that costs less
perplexity. Whether its reduction is established is not asked here: that is judged on other prompts, once.
"""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this stage."""
    parser.add_argument("--summary", type=Path, required=True, help="comparison on the tuning prompts, JSON")
    parser.add_argument(
        "--selections", type=Path, nargs="+", required=True, help="the unit lists compared, in the same order"
    )
    parser.add_argument("--name", required=True, help="what to call the choice in tables")
    parser.add_argument("--output", type=Path, required=True, help="the chosen unit list, JSON")


def run(arguments: argparse.Namespace) -> None:
    """Read the comparison, choose, write the list."""
    import logging

    from excise.artefacts import read_json, sha256_file, write_json
    from excise.edits.unit_list import read_units
    from excise.errors import ExciseError
    from excise.provenance import provenance
    from excise.reporting.tuning import chosen

    summary = read_json(arguments.summary)
    digests = [sha256_file(path) for path in arguments.selections]
    if summary["meta"]["settings"]["selections"] != digests:
        raise ExciseError(
            f"{arguments.summary}: compares other unit lists than those given, or in another order; "
            "run excise summary again"
        )
    best = chosen(summary, where=str(arguments.summary))
    candidates = [row["variant"] for row in summary["variants"][1:]]
    selection = read_units(arguments.selections[candidates.index(best["variant"])])
    meta = selection.pop("meta")
    settings = {"summary": sha256_file(arguments.summary), "selections": digests, "selected": meta["settings"]}
    facts = {key: meta[key] for key in ("method", "model", "attribution", "references", "mean") if key in meta}
    write_json(
        arguments.output,
        provenance("choose", settings, **facts),
        {
            **selection,
            "name": arguments.name,
            "chosen": {"variant": best["variant"], "selection": selection["name"], "candidates": candidates},
        },
    )
    logging.getLogger(__name__).info("%s: %s", arguments.name, best["variant"])
