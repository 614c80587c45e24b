"""Let a model continue prompts.

Each prompt and draw has a random stream of its own, so batch size, order and shards change nothing but floating-point
noise. Prompts are raw text (no chat template) with the special tokens that the tokenizer adds by itself. With --shard,
every n-th batch is done; excise generate --merge puts the shards together to the bytes of one run. Finished batches
are kept in .NAME.partial beside the output: a killed run goes on from there, to the same bytes.
The defaults are RealToxicityPrompts': 25 generations of 20 tokens, top-p 0.9, temperature 1.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from excise.stages.options import add_model_arguments, set_threads

if TYPE_CHECKING:
    from excise.artefacts import Json
    from excise.evaluation.partial import Partial
    from excise.models.encoding import Encoder


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this stage."""
    from excise.config.generations import SeededSampling
    from excise.config.options import add_options

    add_model_arguments(parser, required=False)
    parser.add_argument("--units", type=Path, help="unit list to apply in memory (default: none)")
    parser.add_argument("--prompts", type=Path, required=True, help="prompts, JSONL with id and text")
    add_options(parser, SeededSampling)
    parser.add_argument("--shard", default="0/1", metavar="I/N", help="do batches I, I+N, ... only (default 0/1: all)")
    parser.add_argument("--merge", type=Path, nargs="+", metavar="SHARD", help="merge all shards instead of generating")
    parser.add_argument("--output", type=Path, required=True, help="generations, JSONL")


def run(arguments: argparse.Namespace) -> None:
    """Generate, or merge shards."""
    from excise.artefacts import read_jsonl, write_jsonl
    from excise.errors import ExciseError
    from excise.shards import read_shards

    _, prompts = read_jsonl(arguments.prompts, ("id", "text"))
    if not prompts:
        raise ExciseError(f"{arguments.prompts}: no prompts in it")
    order = {row["id"]: index for index, row in enumerate(prompts)}
    if len(order) < len(prompts):
        raise ExciseError(f"{arguments.prompts}: two prompts have the same id")
    if arguments.merge:
        partial = None
        meta, parts = read_shards("generate", arguments.merge)
        rows = [row for part in parts for row in part]
        if unlike := [row["id"] for row in rows if row["id"] not in order]:
            raise ExciseError(f"{arguments.prompts}: has no prompt {unlike[0]!r}, which the shards answer")
    else:
        if arguments.model is None:
            raise ExciseError("--model is needed to generate")
        meta, rows, partial = _generate(arguments, prompts)
    rows.sort(key=lambda row: (order[row["id"]], row["draw"]))
    write_jsonl(arguments.output, meta, rows)
    if partial is not None:
        partial.discard()


def _generate(arguments: argparse.Namespace, prompts: "list[Json]") -> "tuple[Json, list[Json], Partial]":
    from excise.artefacts import sha256_file
    from excise.config.generations import SeededSampling
    from excise.config.options import section
    from excise.evaluation.generation import batches, end_tokens, generate
    from excise.evaluation.likelihood import check_head
    from excise.evaluation.partial import Partial
    from excise.evaluation.variant import load_variant
    from excise.models.encoding import load_encoder
    from excise.models.loading import device_type, max_positions
    from excise.progress import Progress
    from excise.provenance import provenance
    from excise.shards import parse_shard

    sampling = section(arguments, SeededSampling)
    shard, shards = parse_shard(arguments.shard)
    threads = set_threads(arguments.threads)
    encoder = load_encoder(arguments.model)
    encoded = [
        (row["id"], encoder.prompt(row["text"], f"{arguments.prompts}: prompt {row['id']!r}")) for row in prompts
    ]
    planned = batches([len(ids) for _, ids in encoded], sampling.num_generations, sampling.batch_size)[shard::shards]
    variant = load_variant(arguments.model, arguments.units, dtype=arguments.dtype, device=arguments.device)
    model = variant.model
    model.generation_config.eos_token_id = list(encoder.ends)
    check_head(model)
    _refuse_lengths(encoded, sampling.max_new_tokens, max_positions(model.config), arguments.prompts)
    settings = {
        **sampling.model_dump(),
        "prompts": sha256_file(arguments.prompts),
        "prompt_format": "raw text, special tokens as the tokenizer adds them",
        "end_tokens": sorted(end_tokens(model)),
        "device": device_type(arguments.device),
        "threads": threads,
    }
    meta = provenance(
        "generate",
        settings,
        packages=("torch", "transformers", "tokenizers"),
        **variant.made_with,
    )
    if shards > 1:
        meta["shard"] = [shard, shards]
    partial = Partial(arguments.output, meta)
    earlier = {(row["id"], row["draw"]): row for row in partial.rows}
    rows = []
    with Progress(sum(map(len, planned)), "continuations", "generate") as progress:
        for batch in planned:
            keys = [(prompts[index]["id"], draw) for index, draw in batch]
            if all(key in earlier for key in keys):
                made = [earlier[key] for key in keys]
            else:
                made = [
                    _row(prompts[index], draw, encoded[index][1], ids, encoder)
                    for (index, draw), ids in zip(batch, generate(model, encoded, batch, sampling), strict=True)
                ]
                partial.append(made)
            rows += made
            progress.advance(len(batch))
    return meta, rows, partial


def _refuse_lengths(encoded: list[tuple[str, list[int]]], new: int, limit: int | None, path: Path) -> None:
    """Refuse prompts that no model can continue, or not this one.

    Raises:
        ExciseError: a prompt has no tokens, or with ``new`` ones more than the model has positions.
    """
    from excise.errors import ExciseError

    for name, ids in encoded:
        if not ids:
            raise ExciseError(f"{path}: prompt {name!r} has no tokens; a model cannot continue nothing")
        if limit is not None and len(ids) + new > limit:
            raise ExciseError(
                f"{path}: prompt {name!r} has {len(ids)} tokens; with {new} new ones that is more than the model's "
                f"{limit}"
            )


def _row(prompt: "Json", draw: int, prompt_ids: list[int], completion_ids: list[int], encoder: "Encoder") -> "Json":
    known: Json = {key: prompt[key] for key in ("category", "toxicity") if key in prompt}
    return {
        "id": prompt["id"],
        "draw": draw,
        "prompt": prompt["text"],
        "prompt_ids": prompt_ids,
        "completion": encoder.tokenizer.decode(completion_ids, skip_special_tokens=True),
        "completion_ids": completion_ids,
        **known,
    }
