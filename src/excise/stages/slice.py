"""Cut the least important neurons out of every MLP and save the smaller model as a Hugging Face folder.

Every layer keeps the same number of neurons, a multiple of 64, so that the folder loads as a model of its family with a
smaller width. The output projections take over what the cut neurons did, by least squares on the calibration text.
"""

import argparse
from pathlib import Path

from excise.stages.layerwise import add_layerwise_arguments, change_layers


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this stage."""
    from excise.config.compress import Slicing
    from excise.config.options import add_options

    parser.add_argument("model", type=Path, help="folder of the model")
    parser.add_argument("--keep", type=float, default=0.75, help="share of the neurons to keep (default 0.75)")
    add_options(parser, Slicing)
    parser.add_argument("--series", help="variants of one name belong together in tables (default: slice)")
    add_layerwise_arguments(parser)


def run(arguments: argparse.Namespace) -> None:
    """Cut, and say how much."""
    import logging

    from excise.compress.slicing import Slice
    from excise.errors import ExciseError
    from excise.models.families import neuron_shape
    from excise.models.loading import load_config
    from excise.tasks.measurement import About

    if not 0 < arguments.keep < 1:
        raise ExciseError(f"--keep {arguments.keep}: must be above 0 and below 1")
    layers, before = neuron_shape(load_config(arguments.model))
    width = round(before * arguments.keep / arguments.multiple) * arguments.multiple
    change_layers(
        arguments,
        Slice(width, arguments.repair),
        {"width": width, "repair": arguments.repair},
        what=f"{width} of {before} neurons per layer",
        about=About(
            method="slice",
            series=arguments.series or "slice",
            unit="neuron",
            size=(before - width) * layers,
            share=1 - width / before,
        ),
    )
    logging.getLogger(__name__).info("%s: %d of %d neurons per layer kept", arguments.output, width, before)
