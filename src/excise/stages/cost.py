"""Measure what a variant costs on this machine: weights, bytes, tokens per second beside the unpruned model.

The two models take turns, so that a busy moment falls on both, and what is compared is their ratio round by round. On
the CPU a second is one of processor time. Times differ from machine to machine; ratios are steadier.
"""

import argparse
from pathlib import Path

from excise.stages.options import add_model_arguments, set_threads


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this stage."""
    from excise.config.evaluation import Timing
    from excise.config.options import add_options

    add_model_arguments(parser)
    parser.add_argument("--units", type=Path, help="unit list to apply in memory (default: none)")
    parser.add_argument("--base", type=Path, required=True, help="folder of the unpruned model")
    add_options(parser, Timing)
    parser.add_argument("--output", type=Path, required=True, help="cost, JSON")


def run(arguments: argparse.Namespace) -> None:
    """Open both, count, time in turns, write."""
    import torch

    from excise.artefacts import write_json
    from excise.evaluation.likelihood import check_head
    from excise.evaluation.timing import in_turns, prefill_and_decode
    from excise.evaluation.variant import load_variant
    from excise.models.files import indexed
    from excise.models.loading import device_type
    from excise.provenance import provenance

    threads = set_threads(arguments.threads)
    variant = load_variant(arguments.model, arguments.units, dtype=arguments.dtype, device=arguments.device)
    base = load_variant(arguments.base, dtype=arguments.dtype, device=arguments.device)
    parts: dict[str, dict[str, list[float]]] = {part: {"variant": [], "unpruned": []} for part in ("prefill", "decode")}
    models = {"variant": variant.model, "unpruned": base.model}

    def timed(name: str) -> float:
        first, second = prefill_and_decode(models[name], arguments.prefill, arguments.decode)
        parts["prefill"][name].append(first)
        parts["decode"][name].append(second)
        return first + second

    for model in models.values():
        check_head(model)
    in_turns({name: lambda name=name: timed(name) for name in models}, arguments.rounds)  # type: ignore[misc]
    parameters = list(variant.model.parameters())
    settings = {key: getattr(arguments, key) for key in ("prefill", "decode", "rounds")}
    write_json(
        arguments.output,
        provenance(
            "cost",
            {**settings, "device": device_type(arguments.device), "threads": threads},
            packages=("torch", "transformers"),
            base=base.made_with["model"],
            **variant.made_with,
        ),
        {
            "parameters": sum(one.numel() for one in parameters),
            "nonzero": sum(int(torch.count_nonzero(one)) for one in parameters),
            "bytes": sum((arguments.model / name).stat().st_size for name in indexed(arguments.model)),
            "seconds": {
                part: {name: taken[-arguments.rounds :] for name, taken in both.items()} for part, both in parts.items()
            },
        },
    )
