"""Score the neurons without any corpus, as a control: at random, or by the norm of their weights.

The output takes the place of a contrast: the neurons with the lowest values are selected first.
"""

import argparse
from pathlib import Path

from excise.attribution import DRAWN


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this stage."""
    parser.add_argument("--method", required=True, help=f"one of {', '.join(DRAWN)}")
    parser.add_argument("--model", type=Path, required=True, help="model folder")
    parser.add_argument("--seed", type=int, default=0, help="seed of the draw (default 0); magnitude ignores it")
    parser.add_argument("--output", type=Path, required=True, help="scores, safetensors")


def run(arguments: argparse.Namespace) -> None:
    """Draw, write."""
    from excise.artefacts import write_tensors
    from excise.attribution import drawn, module_name
    from excise.attribution.scores import refuse_not_finite
    from excise.models.loading import identity
    from excise.provenance import provenance

    difference = drawn(arguments.method).draw(arguments.model, arguments.seed)
    refuse_not_finite(difference)
    meta = provenance(
        "control",
        {"seed": arguments.seed},
        packages=("torch",),
        modules=(module_name(arguments.method),),
        method=arguments.method,
        model=identity(arguments.model, "any"),
    )
    write_tensors(arguments.output, meta, {"difference": difference})
