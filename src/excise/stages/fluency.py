"""Measure how plausible generations are to the unpruned model.

For each continuation the summed negative log-likelihood (nats) of its tokens given the prompt. Always give the unpruned
model: text that it would never have written is not a detoxified answer but a broken one.
"""

import argparse
from pathlib import Path

from excise.stages.options import add_model_arguments, set_threads


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this stage."""
    add_model_arguments(parser, model="folder of the unpruned model")
    parser.add_argument("--generations", type=Path, required=True, help="generations, JSONL")
    parser.add_argument("--num-generations", type=int, help="read only this many of each prompt (default: all)")
    parser.add_argument("--batch-size", type=int, default=64, help="continuations read together (default 64)")
    parser.add_argument("--output", type=Path, required=True, help="fluency, JSONL")


def run(arguments: argparse.Namespace) -> None:
    """Read generations, run the model over them, write one row each."""
    from excise.artefacts import read_jsonl, sha256_file, write_jsonl
    from excise.errors import ExciseError
    from excise.evaluation.fluency import continuation_nll
    from excise.evaluation.likelihood import check_head
    from excise.evaluation.variant import load_variant
    from excise.models.loading import device_type, identity
    from excise.progress import Progress
    from excise.provenance import provenance

    if arguments.batch_size < 1:
        raise ExciseError(f"--batch-size {arguments.batch_size}: must be at least 1")
    generated, rows = read_jsonl(arguments.generations, ("id", "draw", "prompt_ids", "completion_ids"))
    if arguments.num_generations is not None:
        rows = [row for row in rows if row["draw"] < arguments.num_generations]
    if not rows:
        raise ExciseError(f"{arguments.generations}: no generations (--num-generations {arguments.num_generations})")
    base = identity(arguments.model, arguments.dtype)
    writer = generated.get("model", base)
    if base["fingerprint"] not in (writer["fingerprint"], writer.get("base", {}).get("fingerprint")):
        raise ExciseError(
            f"{arguments.generations}: written by {writer['id']!r} (weights {writer['fingerprint'][:12]}) or a pruned "
            f"form of it, not by the model given (weights {base['fingerprint'][:12]}); give the unpruned model"
        )
    threads = set_threads(arguments.threads)
    model = load_variant(arguments.model, dtype=arguments.dtype, device=arguments.device).model
    check_head(model)
    # Draws of one prompt stand together, so that it is read once; prompts of similar length share a batch.
    order = sorted(range(len(rows)), key=lambda index: (len(rows[index]["prompt_ids"]), rows[index]["prompt_ids"]))
    nll = [0.0] * len(rows)
    with Progress(len(rows), "continuations", "fluency") as progress:
        for start in range(0, len(rows), arguments.batch_size):
            part = order[start : start + arguments.batch_size]
            prompts = list(dict.fromkeys(tuple(rows[index]["prompt_ids"]) for index in part))
            place = {prompt: number for number, prompt in enumerate(prompts)}
            answers = [(place[tuple(rows[index]["prompt_ids"])], rows[index]["completion_ids"]) for index in part]
            for index, value in zip(part, continuation_nll(model, prompts, answers), strict=True):
                nll[index] = value
            progress.advance(len(part))
    write_jsonl(
        arguments.output,
        provenance(
            "fluency",
            {
                "num_generations": arguments.num_generations,
                "batch_size": arguments.batch_size,
                "device": device_type(arguments.device),
                "threads": threads,
                "generations": sha256_file(arguments.generations),
            },
            packages=("torch", "transformers"),
            model=base,
            selection=generated.get("selection"),
        ),
        (
            {"id": row["id"], "draw": row["draw"], "nll": value, "tokens": len(row["completion_ids"])}
            for row, value in zip(rows, nll, strict=True)
        ),
    )
