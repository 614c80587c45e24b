"""Make pairs of prompts for a task, in the model's own tokens, and check that the model does the task.

A task of excise, or pairs of your own: JSONL rows {clean, corrupted, answers, wrong}. Half of the pairs finds a
circuit, the other half judges it.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from excise.stages.options import add_model_arguments, set_threads

if TYPE_CHECKING:
    from excise.data.pairs import TextPair


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this stage."""
    from excise.config.circuit_options import Running, Task
    from excise.config.options import add_options

    add_options(parser, Task)
    add_model_arguments(parser, spread=False)
    add_options(parser, Running, only=["batch_size"])
    parser.add_argument("--seed", type=int, default=0, help="seed of the draw and of the split (default 0)")
    parser.add_argument("--find", type=Path, required=True, help="the pairs that find, JSONL")
    parser.add_argument("--judge", type=Path, required=True, help="the pairs that judge, JSONL")


def run(arguments: argparse.Namespace) -> None:
    """Make, tokenise, split, measure, write."""
    import logging

    from excise.artefacts import sha256_file, write_jsonl
    from excise.circuits.batches import make_batches
    from excise.circuits.stream import Stream, refuse_family
    from excise.circuits.task import does_it, refuse_failure
    from excise.config.circuit_options import Task
    from excise.config.options import section
    from excise.data.pairs import rows, split, tokenised
    from excise.errors import ExciseError
    from excise.models.encoding import load_encoder
    from excise.models.loading import SPREAD, device_type, identity, load_config, load_model
    from excise.provenance import provenance

    section(arguments, Task)
    if arguments.device == SPREAD:
        raise ExciseError("--device spread: circuits are found on one device (auto, cpu, cuda, mps)")
    refuse_family(load_config(arguments.model))
    threads = set_threads(arguments.threads)
    encoder = load_encoder(arguments.model)

    def tokenise(text: str) -> list[int]:
        return encoder.prompt(text, str(arguments.texts or arguments.task))

    task = arguments.task if arguments.texts is None else Path(arguments.texts).name.removesuffix(".jsonl")
    texts = _texts(arguments, tokenise)
    found = [tokenised(pair, tokenise, f"{task}: pair {number}") for number, pair in enumerate(texts, 1)]
    halves = split(found, count=arguments.pairs, seed=arguments.seed, by_template=arguments.disjoint == "templates")
    stream = Stream(load_model(arguments.model, dtype=arguments.dtype, device=arguments.device))
    settings = {
        **{key: getattr(arguments, key) for key in ("corruption", "pairs", "disjoint", "seed", "min_accuracy")},
        "texts": sha256_file(Path(arguments.texts)) if arguments.texts is not None else None,
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


def _texts(arguments: argparse.Namespace, tokenise: Callable[[str], list[int]]) -> "list[TextPair]":
    """Pairs of the user's own, or enough of a task for both halves."""
    from excise.data.pair_tasks import candidates
    from excise.data.pairs import HALVES, read_texts

    if arguments.texts is not None:
        return read_texts(arguments.texts)
    count = len(HALVES) * arguments.pairs
    return candidates(arguments.task, arguments.corruption, tokenise, count=count, seed=arguments.seed)
