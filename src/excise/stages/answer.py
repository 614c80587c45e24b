"""Let a model, or a variant of it, do a task of pairs: logit difference of every pair, and whether it is right.

Pairs of excise pairs; those that found a circuit, or heads to protect, are not those that judge a variant.
"""

import argparse
from pathlib import Path

from excise.stages.options import add_model_arguments, set_threads


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this stage."""
    from excise.config.circuit_options import Running
    from excise.config.options import add_options

    add_model_arguments(parser)
    parser.add_argument("--units", type=Path, help="unit list to apply in memory (default: none)")
    parser.add_argument("--pairs", type=Path, required=True, help="pairs, JSONL, of excise pairs")
    parser.add_argument("--name", help="what to call the task (default: as the pairs say)")
    add_options(parser, Running, only=["batch_size"])
    parser.add_argument("--output", type=Path, required=True, help="answers, JSON")


def run(arguments: argparse.Namespace) -> None:
    """Read, run, write."""
    import logging

    import torch

    from excise.artefacts import sha256_file, write_json
    from excise.circuits.batches import make_batches
    from excise.circuits.objectives import value
    from excise.data.pairs import read_pairs
    from excise.errors import ExciseError
    from excise.evaluation.variant import load_variant
    from excise.models.loading import device_type, input_device, load_config
    from excise.progress import Progress
    from excise.provenance import provenance

    threads = set_threads(arguments.threads)
    meta, pairs = read_pairs(arguments.pairs, load_config(arguments.model))
    variant = load_variant(arguments.model, arguments.units, dtype=arguments.dtype, device=arguments.device)
    batches = make_batches(pairs, arguments.batch_size)
    ids: list[str] = []
    values: list[float] = []
    with Progress(len(pairs), "pairs", "answers") as progress, torch.no_grad():
        for batch in batches:
            here = batch.to(input_device(variant.model))
            logits = variant.model(input_ids=here.clean, logits_to_keep=1).logits[:, -1]
            values += value("logit-difference", logits, here, logits).double().cpu().tolist()
            ids += batch.ids
            progress.advance(len(batch.ids))
    if not torch.tensor(values).isfinite().all():
        raise ExciseError("a logit difference is not a finite number: the model is broken, or use --dtype float32")
    settings = {
        "batch_size": arguments.batch_size,
        "device": device_type(arguments.device),
        "threads": threads,
        "pairs": sha256_file(arguments.pairs),
        "half": meta.get("half"),
    }
    write_json(
        arguments.output,
        provenance("answer", settings, packages=("torch", "transformers"), **variant.made_with),
        {"name": arguments.name or meta.get("task"), "ids": ids, "logit_difference": values},
    )
    right = sum(one > 0 for one in values) / len(values)
    logging.getLogger(__name__).info(
        "%d pairs: %.0f %% right, logit difference %+.2f", len(ids), 100 * right, sum(values) / len(values)
    )
