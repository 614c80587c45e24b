"""Split prompts into a part that finds the neurons and a part that judges the result.

The parts never share a prompt or a near-duplicate; categories are represented in both as far as that allows.
"""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this stage."""
    parser.add_argument("--prompts", type=Path, required=True, help="prompts, JSONL")
    parser.add_argument("--fraction", type=float, default=0.5, help="share of the attribution part (default 0.5)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the split (default 0)")
    parser.add_argument("--limit", type=int, help="use at most so many prompts, drawn by the seed (default: all)")
    parser.add_argument("--attribution", type=Path, required=True, help="attribution part, JSONL")
    parser.add_argument("--evaluation", type=Path, required=True, help="evaluation part, JSONL")


def run(arguments: argparse.Namespace) -> None:
    """Read, split, check, write both parts."""
    import logging
    from collections import Counter

    from excise.artefacts import sha256_file, write_jsonl
    from excise.provenance import provenance
    from excise.resources import prompts

    meta, rows = prompts.read_prompts(arguments.prompts)
    parts = prompts.split(rows, fraction=arguments.fraction, seed=arguments.seed, limit=arguments.limit)
    settings = {
        "prompts": sha256_file(arguments.prompts),
        "fraction": arguments.fraction,
        "seed": arguments.seed,
        "limit": arguments.limit,
        "near_duplicate_jaccard": prompts.SIMILARITY,
        "near_duplicate_prefix_words": prompts.PREFIX_WORDS,
    }
    used = [row["text"] for part in parts for row in part]
    together = [len(group) for group in prompts.groups(used) if len(group) > 1]
    counts = {
        "available": len(rows),
        "attribution": len(parts[0]),
        "evaluation": len(parts[1]),
        "near_duplicates": {"groups": len(together), "prompts": sum(together), "largest": max(together, default=0)},
    }
    for name, path, part in zip(
        ("attribution", "evaluation"), (arguments.attribution, arguments.evaluation), parts, strict=True
    ):
        by_category = dict(sorted(Counter(row["category"] for row in part if "category" in row).items()))
        facts = counts | {"by_category": by_category}
        write_jsonl(path, provenance("split-prompts", settings, label=meta.get("label"), part=name, counts=facts), part)
    logging.getLogger(__name__).info("%d prompts for attribution, %d for evaluation", len(parts[0]), len(parts[1]))
