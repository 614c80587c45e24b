"""Split prompts into a part that finds the neurons and a part that judges the result.

The parts never share a prompt or a near-duplicate; categories are represented in each as far as that allows. A third
part, on which sizes of a selection compete, is taken from what would judge; the attribution part does not depend on it.
With --judging other prompts judge, less near-duplicates of the other parts.
"""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this stage."""
    from excise.config.inputs import Prompts
    from excise.config.options import add_options

    parser.add_argument("--prompts", type=Path, required=True, help="prompts, JSONL")
    add_options(parser, Prompts, only=["attribution_fraction", "tuning_fraction", "limit"])
    parser.add_argument("--judging", type=Path, help="prompts that judge in place of the rest, JSONL (default: none)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the split (default 0)")
    parser.add_argument("--attribution", type=Path, required=True, help="attribution part, JSONL")
    parser.add_argument("--tuning", type=Path, help="tuning part, JSONL (default: none)")
    parser.add_argument("--evaluation", type=Path, required=True, help="evaluation part, JSONL")


def run(arguments: argparse.Namespace) -> None:
    """Read, split, check, write the parts."""
    import logging
    from collections import Counter

    from excise.artefacts import sha256_file, write_jsonl
    from excise.data import prompts
    from excise.errors import ExciseError
    from excise.provenance import provenance

    if (arguments.tuning is None) != (arguments.tuning_fraction == 0):
        raise ExciseError("--tuning and --tuning-fraction: give both or neither")
    if not 0 <= arguments.tuning_fraction < 1 - arguments.attribution_fraction:
        raise ExciseError(
            f"--tuning-fraction {arguments.tuning_fraction}: with --attribution-fraction "
            f"{arguments.attribution_fraction} none are left"
        )
    meta, rows = prompts.read_prompts(arguments.prompts)
    attribution, rest = prompts.split(
        rows, fraction=arguments.attribution_fraction, seed=arguments.seed, limit=arguments.limit
    )
    parts = {"attribution": (arguments.attribution, attribution), "evaluation": (arguments.evaluation, rest)}
    if arguments.tuning is not None:
        share = arguments.tuning_fraction / (1 - arguments.attribution_fraction)
        tuning, rest = prompts.split(rest, fraction=share, seed=arguments.seed)
        parts |= {"tuning": (arguments.tuning, tuning), "evaluation": (arguments.evaluation, rest)}
    label = {name: meta.get("label") for name in parts}
    if arguments.judging is not None:
        meta, judging = prompts.read_prompts(arguments.judging)
        served = [row for name, (_, part) in parts.items() if name != "evaluation" for row in part]
        parts["evaluation"] = arguments.evaluation, prompts.unlike(judging, served)
        label["evaluation"] = meta.get("label")
    settings = {
        "prompts": sha256_file(arguments.prompts),
        "judging": None if arguments.judging is None else sha256_file(arguments.judging),
        "fraction": arguments.attribution_fraction,
        "tuning_fraction": arguments.tuning_fraction,
        "seed": arguments.seed,
        "limit": arguments.limit,
        "near_duplicate_jaccard": prompts.SIMILARITY,
        "near_duplicate_prefix_words": prompts.PREFIX_WORDS,
    }
    used = [row["text"] for _, part in parts.values() for row in part]
    together = [len(group) for group in prompts.groups(used) if len(group) > 1]
    counts = {
        "available": len(rows),
        **{name: len(part) for name, (_, part) in parts.items()},
        "near_duplicates": {"groups": len(together), "prompts": sum(together), "largest": max(together, default=0)},
    }
    for name, (path, part) in parts.items():
        by_category = dict(sorted(Counter(row["category"] for row in part if "category" in row).items()))
        facts = counts | {"by_category": by_category}
        write_jsonl(path, provenance("split-prompts", settings, label=label[name], part=name, counts=facts), part)
    said = ", ".join(f"{len(part)} for {name}" for name, (_, part) in parts.items())
    logging.getLogger(__name__).info("prompts: %s", said)
