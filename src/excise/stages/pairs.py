"""Make pairs of prompts for a task, in the model's own tokens, and check that the model does the task.

A task of excise, or pairs of your own: JSONL rows {clean, corrupted, answers, wrong}. Half of the pairs finds a
circuit, the other half judges it.
"""

import argparse
from pathlib import Path

from excise.stages.options import add_model_arguments, set_threads


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this stage."""
    parser.add_argument("--task", help="ioi, greater-than, pronouns or induction")
    parser.add_argument("--texts", type=Path, help="pairs of your own instead of a task, JSONL")
    parser.add_argument(
        "--corruption", help="of ioi: flip (the answer changes) or abc (three other names; default flip)"
    )
    add_model_arguments(parser, spread=False)
    parser.add_argument("--pairs", type=int, default=32, help="pairs per half (default 32)")
    parser.add_argument(
        "--disjoint", default="prompts", help="what the halves do not share: prompts or templates (default prompts)"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the draw and of the split (default 0)")
    parser.add_argument(
        "--min-accuracy", type=float, default=0.75, help="least share of pairs that the model gets right (default 0.75)"
    )
    parser.add_argument("--batch-size", type=int, default=8, help="pairs per batch (default 8)")
    parser.add_argument("--find", type=Path, required=True, help="the pairs that find, JSONL")
    parser.add_argument("--judge", type=Path, required=True, help="the pairs that judge, JSONL")


def run(arguments: argparse.Namespace) -> None:
    """Make, tokenise, split, measure, write."""
    import logging

    from excise.artefacts import sha256_file, write_jsonl
    from excise.circuits.batches import make_batches
    from excise.circuits.stream import Stream, refuse_family
    from excise.circuits.task import does_it, refuse_failure
    from excise.data.pair_tasks import candidates
    from excise.data.pairs import HALVES, read_texts, rows, split, tokenised
    from excise.errors import ExciseError, unknown
    from excise.models.encoding import load_encoder
    from excise.models.loading import SPREAD, device_type, identity, load_config, load_model
    from excise.provenance import provenance

    if (arguments.task is None) == (arguments.texts is None):
        raise ExciseError("give --task or --texts, and not both")
    if arguments.texts is not None and arguments.corruption is not None:
        raise ExciseError("--corruption is for a --task; pairs of your own bring their corrupted prompts")
    if arguments.disjoint not in ("prompts", "templates"):
        raise unknown("unit", arguments.disjoint, ("prompts", "templates"), where="--disjoint")
    if arguments.pairs < 1:
        raise ExciseError(f"--pairs {arguments.pairs}: must be at least 1")
    if arguments.device == SPREAD:
        raise ExciseError("--device spread: circuits are found on one device (auto, cpu, cuda, mps)")
    refuse_family(load_config(arguments.model))
    threads = set_threads(arguments.threads)
    encoder = load_encoder(arguments.model)

    def tokenise(text: str) -> list[int]:
        return encoder.prompt(text, str(arguments.texts or arguments.task))

    if arguments.texts is not None:
        texts, task = read_texts(arguments.texts), arguments.texts.name.removesuffix(".jsonl")
    else:
        count = len(HALVES) * arguments.pairs
        texts = candidates(arguments.task, arguments.corruption, tokenise, count=count, seed=arguments.seed)
        task = arguments.task
    found = [tokenised(pair, tokenise, f"{task}: pair {number}") for number, pair in enumerate(texts, 1)]
    halves = split(found, count=arguments.pairs, seed=arguments.seed, by_template=arguments.disjoint == "templates")
    stream = Stream(load_model(arguments.model, dtype=arguments.dtype, device=arguments.device))
    settings = {
        "corruption": arguments.corruption,
        "pairs": arguments.pairs,
        "disjoint": arguments.disjoint,
        "seed": arguments.seed,
        "min_accuracy": arguments.min_accuracy,
        "texts": sha256_file(arguments.texts) if arguments.texts is not None else None,
        "batch_size": arguments.batch_size,
        "device": device_type(arguments.device),
        "threads": threads,
    }
    model = identity(arguments.model, arguments.dtype)
    measured = {half: does_it(stream, make_batches(part, arguments.batch_size)) for half, part in halves.items()}
    for half, facts in measured.items():
        logging.getLogger(__name__).info(
            "%s: the model answers %.0f %% of %d pairs right; logit difference %+.2f clean, %+.2f corrupted",
            half, 100 * facts["accuracy"], facts["pairs"], facts["clean"], facts["corrupted"],
        )  # fmt: skip
    for half, facts in measured.items():
        refuse_failure(facts, arguments.min_accuracy, f"{task}, {half} half")
    for half, part in halves.items():
        packages = ("tokenizers", "torch", "transformers")
        meta = provenance(
            "pairs", settings, packages=packages, task=task, half=half, model=model, measured=measured[half]
        )
        write_jsonl(getattr(arguments, half), meta, rows(part))
