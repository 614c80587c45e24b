"""Score the units without any text, as a control: at random, or by the norm of their weights.

The output takes the place of a contrast: the units with the lowest values are selected first.
"""

import argparse
from pathlib import Path

from excise.attribution.registry import CONTROLS
from excise.models.units import UNITS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this stage."""
    parser.add_argument("--method", required=True, help=f"one of {', '.join(CONTROLS)}")
    parser.add_argument("--unit", default="neuron", help=f"what is scored: {', '.join(UNITS)} (default neuron)")
    parser.add_argument("--model", type=Path, required=True, help="model folder")
    parser.add_argument("--seed", type=int, default=0, help="seed of the draw (default 0); magnitude ignores it")
    parser.add_argument("--output", type=Path, required=True, help="scores, safetensors")


def run(arguments: argparse.Namespace) -> None:
    """Draw, write."""
    from excise.artefacts import write_arrays
    from excise.attribution.registry import control, refuse_unit
    from excise.attribution.scores import refuse_not_finite
    from excise.models.loading import identity, load_config
    from excise.models.units import axis
    from excise.provenance import provenance

    method = control(arguments.method)
    units = axis(load_config(arguments.model), arguments.unit)
    refuse_unit(method, units.unit)
    difference = method.draw(arguments.model, arguments.seed, units)
    refuse_not_finite(difference, units.unit)
    meta = provenance(
        "control",
        {"unit": units.unit, "seed": arguments.seed},
        packages=method.packages,
        modules=(method.module,),
        method=method.name,
        model=identity(arguments.model, "any"),
    )
    write_arrays(arguments.output, meta, {"difference": difference})
