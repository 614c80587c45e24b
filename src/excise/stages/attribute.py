"""Measure what each unit contributes on a reference set: additive sums, of the whole set or of one shard.

Samples are sorted by length and cut into batches; a shard is a range of batches, and shards add up (excise merge) to
exactly the bytes of the whole. Several sets, as one corpus under several seeds, are measured one after the other, so
that the model is loaded once.
"""

import argparse
import logging
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from excise.attribution import AGGREGATES, TOKENS
from excise.attribution.registry import MEASURED
from excise.models.units import UNITS
from excise.stages.options import add_model_arguments, set_threads

if TYPE_CHECKING:
    from excise.artefacts import Json
    from excise.attribution import Measured
    from excise.attribution.batches import Batch

logger = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this stage."""
    from excise.config.attribution import Measuring
    from excise.config.options import add_options

    parser.add_argument("--method", required=True, help=f"one of {', '.join(MEASURED)}")
    parser.add_argument("--unit", default="neuron", help=f"what is measured: {', '.join(UNITS)} (default neuron)")
    add_model_arguments(parser)
    parser.add_argument(
        "--reference", type=Path, nargs="+", required=True, help="reference sets, JSONL: id, input_ids, target_start"
    )
    add_options(parser, Measuring)
    parser.add_argument("--aggregate", default="signed", help=f"{', '.join(AGGREGATES)} (default signed)")
    parser.add_argument("--tokens", default="all", help=f"tokens to count: {', '.join(TOKENS)} (default all)")
    parser.add_argument("--shard", default="0/1", help="I/N: the I-th, from 0, of N parts (default 0/1: all)")
    parser.add_argument("--corpus", help="what to call the reference sets (default: each its file's name)")
    parser.add_argument(
        "--seed", type=int, nargs="+", default=[0], help="the seeds that the reference sets were drawn with (default 0)"
    )
    parser.add_argument("--per-sample", action="store_true", help="also keep each sample's values (default: sums only)")
    parser.add_argument(
        "--output", type=Path, nargs="+", required=True, help="statistics, safetensors, a file for each reference set"
    )


def run(arguments: argparse.Namespace) -> None:
    """Read and check all sets; load the model; then batch, measure, add up and write each."""
    import torch

    from excise.attribution import Options
    from excise.attribution.batches import make_batches, read_reference, shard
    from excise.attribution.engine import measure
    from excise.attribution.registry import measured, refuse_unit
    from excise.errors import ExciseError, unknown
    from excise.models.loading import identity, load_config, load_model, resolve_device
    from excise.shards import parse_shard

    method = measured(arguments.method)
    for name, allowed in (("aggregate", AGGREGATES), ("tokens", TOKENS), ("unit", UNITS)):
        if getattr(arguments, name) not in allowed:
            raise unknown(name, getattr(arguments, name), allowed, where=f"--{name}")
    refuse_unit(method, arguments.unit)
    refuse_float16(arguments.dtype)
    if not len(arguments.reference) == len(arguments.seed) == len(set(arguments.output)):
        raise ExciseError("--reference, --seed and --output: give as many seeds and outputs as reference sets")
    set_threads(arguments.threads)
    config = load_config(arguments.model)
    excluded = special_tokens(arguments.model) if arguments.tokens == "not-special" else []
    sets = [
        make_batches(read_reference(path, config)[1], arguments.batch_size, excluded) for path in arguments.reference
    ]
    index, shards = parse_shard(arguments.shard)
    about = identity(arguments.model, arguments.dtype)
    if resolve_device(arguments.device).type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when CUDA starts
        torch.use_deterministic_algorithms(True)
    model = load_model(arguments.model, dtype=arguments.dtype, device=arguments.device)
    options = Options(
        objective=arguments.objective,
        aggregate=arguments.aggregate,
        recompute=arguments.recompute,
        unit=arguments.unit,
    )
    start, tokens = time.monotonic(), 0
    for place, (batches, output) in enumerate(zip(sets, arguments.output, strict=True)):
        part = shard(len(batches), index, shards)
        meta = _provenance(arguments, place, method, about, batches, excluded)
        logger.info("%s, batches %d to %d of %d", arguments.method, part.start, part.stop, len(batches))
        measure(model, method, batches, part, options=options, meta=meta, per_sample=arguments.per_sample).write(output)
        tokens += sum(int(batches[number].mask.sum()) for number in part)
    seconds = time.monotonic() - start
    logger.info("%s: %d tokens, %.0f per second", arguments.method, tokens, tokens / seconds)


def _provenance(
    arguments: argparse.Namespace,
    place: int,
    method: "Measured",
    model: "Json",
    batches: "list[Batch]",
    excluded: list[int],
) -> "Json":
    """Of the statistics of one of the sets."""
    import torch

    from excise.artefacts import sha256_file
    from excise.models.loading import device_type
    from excise.provenance import provenance

    reference, backward = arguments.reference[place], method.needs == "backward"
    return provenance(
        "attribute",
        {
            "unit": arguments.unit,
            "objective": arguments.objective if backward else None,
            "aggregate": arguments.aggregate if backward else None,
            "recompute": arguments.recompute if backward else None,
            "tokens": arguments.tokens,
            "excluded_token_ids": excluded,
            "batch_size": arguments.batch_size,
            "per_sample": arguments.per_sample,
            "device": device_type(arguments.device),
            "threads": torch.get_num_threads(),
        },
        packages=method.packages,
        modules=(method.module,),
        method=arguments.method,
        model=model,
        corpus={
            "id": arguments.corpus or reference.name.removesuffix(".jsonl"),
            "seed": arguments.seed[place],
            "sha256": sha256_file(reference),
            "samples": sum(len(batch.ids) for batch in batches),
        },
        # In the order of the rows, where values are kept per sample.
        sample_ids=[i for batch in batches for i in batch.ids] if arguments.per_sample or method.rows else None,
    )


def refuse_float16(dtype: str) -> None:
    """Refuse float16 before anything is loaded.

    Raises:
        ExciseError: the dtype is float16.
    """
    if dtype in ("float16", "half", "fp16"):
        import torch

        from excise.attribution.lxt_patch import refuse_float16

        refuse_float16(torch.float16, "--dtype")


def special_tokens(folder: Path) -> list[int]:
    """Ids of the tokenizer's special tokens, sorted."""
    from excise.models.loading import load_tokenizer

    return sorted(load_tokenizer(folder).all_special_ids)
