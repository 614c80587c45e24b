"""Run a 2:4 model by sparse kernels on an NVIDIA GPU, in memory: check the pattern, compare logits, time it.

Nothing is saved but the figures: no format for 2:4 weights is left that other programs load. Both models take turns.
Maps that do not keep 2 of 4 stay dense, and are counted. --check-only needs no GPU.
"""

import argparse
from pathlib import Path
from typing import Any

DTYPE = "bfloat16"
"""What both models run in."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this stage."""
    from excise.config.evaluation import Timing
    from excise.config.options import add_options

    parser.add_argument("model", type=Path, help="folder of the 2:4 model")
    parser.add_argument("--check-only", action="store_true", help="only check which maps keep 2 of 4, on any machine")
    add_options(parser, Timing)
    parser.add_argument("--output", type=Path, required=True, help="figures, JSON")


def run(arguments: argparse.Namespace) -> None:
    """Check, convert, compare, time, write."""
    import logging

    from excise.artefacts import write_json
    from excise.compress.semi_structured import maps_of, require_gpu
    from excise.errors import ExciseError
    from excise.models.loading import identity
    from excise.provenance import provenance

    found = {(layer, path): breaks for layer, path, breaks in maps_of(arguments.model)}
    fitting = {place for place, breaks in found.items() if not breaks}
    said = f"{len(fitting)} of {len(found)} maps keep 2 of every 4 inputs"
    logging.getLogger(__name__).info("%s: %s", arguments.model, said)
    if not fitting:
        (layer, path), count = next(iter(found.items()))
        raise ExciseError(
            f"{arguments.model}: no map keeps 2 of every 4 inputs (layer {layer}, {path}: {count} groups keep more). "
            "Make one: excise compress --pattern 2:4"
        )
    figures: dict[str, Any] = {"maps": len(found), "fitting": len(fitting)}
    settings = {"check_only": arguments.check_only, "dtype": DTYPE}
    if not arguments.check_only:
        require_gpu()
        figures |= _measured(arguments, fitting)
        settings |= {key: getattr(arguments, key) for key in ("prefill", "decode", "rounds")}
    meta = provenance("accelerate", settings, packages=("torch",), model=identity(arguments.model, DTYPE))
    write_json(arguments.output, meta, figures)


def _measured(arguments: argparse.Namespace, places: set[tuple[int, str]]) -> dict[str, Any]:
    """Logits and times of the sparse model beside the dense one, on the GPU."""
    import torch

    from excise.compress.semi_structured import convert
    from excise.evaluation.timing import in_turns, prefill_and_decode
    from excise.models.loading import load_model

    models = {name: load_model(arguments.model, dtype=DTYPE, device="cuda") for name in ("sparse", "dense")}
    convert(models["sparse"], places)
    ids = (torch.arange(arguments.prefill, device="cuda") % (models["dense"].config.vocab_size - 1) + 1)[None]
    with torch.inference_mode():
        sparse, dense = (models[name](input_ids=ids).logits.float() for name in ("sparse", "dense"))
    seconds: dict[str, dict[str, list[float]]] = {part: {"sparse": [], "dense": []} for part in ("prefill", "decode")}

    def timed(name: str) -> float:
        taken = prefill_and_decode(models[name], arguments.prefill, arguments.decode)
        for part, one in zip(seconds, taken, strict=True):
            seconds[part][name].append(one)
        return sum(taken)

    in_turns({name: lambda name=name: timed(name) for name in models}, arguments.rounds)  # type: ignore[misc]
    return {
        "gpu": torch.cuda.get_device_name(),
        "logits": {
            "largest_difference": float((sparse - dense).abs().max()),
            "largest": float(dense.abs().max()),
            "same_first": float((sparse.argmax(-1) == dense.argmax(-1)).double().mean()),
        },
        "seconds": {
            part: {name: one[-arguments.rounds :] for name, one in both.items()} for part, both in seconds.items()
        },
    }
