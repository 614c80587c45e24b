"""Score every edge of a model on pairs of prompts: additive sums, of the whole set or of one shard.

Shards add up with excise merge. A control (random, weight-magnitude) needs no pairs, but names them, so that it is
judged on the same task.
"""

import argparse
import logging
import os
from pathlib import Path

from excise.stages.circuit_options import PACKAGES, add_pair_arguments, graph_meta, opened

logger = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this stage."""
    from excise.config.circuit_options import Scoring
    from excise.config.options import add_options

    parser.add_argument(
        "--method", required=True, help="eap, eap-ig, relp, relp-qk, relp-ig, random or weight-magnitude"
    )
    add_pair_arguments(parser)
    add_options(parser, Scoring)
    parser.add_argument("--seed", type=int, default=0, help="seed of the resamples, and of random (default 0)")
    parser.add_argument("--shard", default="0/1", help="I/N: the I-th, from 0, of N parts (default 0/1: all)")
    parser.add_argument("--output", type=Path, required=True, help="scores of edges, safetensors")


def run(arguments: argparse.Namespace) -> None:
    """Read, score, add up, write."""
    import torch

    from excise.attribution.batches import shard
    from excise.circuits import methods
    from excise.circuits.measure import Options, check, measure, template_names
    from excise.models.loading import resolve_device
    from excise.provenance import provenance
    from excise.shards import parse_shard
    from excise.stages.attribute import refuse_float16
    from excise.statistics import Statistics

    module = methods.module_name(arguments.method)
    options = Options(arguments.objective, arguments.ablation, arguments.steps, arguments.resamples, arguments.seed)
    refuse_float16(arguments.dtype)
    drawn = arguments.method in methods.DRAWN
    points = () if drawn else check(methods.measured(arguments.method), options)
    if resolve_device(arguments.device).type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when CUDA starts
        torch.use_deterministic_algorithms(True)
    found = opened(arguments)
    part = shard(len(found.batches), *parse_shard(arguments.shard))
    meta = provenance(
        "edges",
        {
            **found.settings,
            "points": list(points),
            "resamples": 0 if drawn else arguments.resamples,
            "seed": arguments.seed,
        },
        packages=PACKAGES if drawn else (*PACKAGES, "lxt"),
        modules=(module,),
        method=arguments.method,
        graph=graph_meta(found.stream),
        templates=[] if drawn else template_names(found.batches),
        **found.meta,
    )
    if drawn:
        scores = methods.drawn(arguments.method).draw(found.stream, arguments.seed)
        statistics = Statistics(meta, 1)
        sums = {"edges": scores, "edges_squared": scores.square()}
        sums |= {"samples": torch.tensor(1), "tokens": torch.tensor(0)}
        statistics.add(0, {name: value.numpy() for name, value in sums.items()})
    else:
        method = methods.measured(arguments.method)
        statistics = measure(found.stream, method, found.batches, part, options=options, meta=meta, means=found.means)
    statistics.write(arguments.output)
    logger.info("%d edges", int(found.stream.graph.edges.sum()))
