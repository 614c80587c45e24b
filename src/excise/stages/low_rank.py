"""Replace linear maps by the product of two thin matrices, and save the model as a Hugging Face folder.

The product is stored multiplied back, so that nothing foreign is needed to load it: the folder is as large and as fast
as before. What factors would save is in its compression.json. Whitened SVD (SVD-LLM) keeps the outputs on the
calibration text; plain SVD is the control.
"""

import argparse
from pathlib import Path

from excise.stages.layerwise import add_layerwise_arguments, change_layers


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this stage."""
    from excise.config.compress import Factoring
    from excise.config.options import add_options

    parser.add_argument("model", type=Path, help="folder of the model")
    parser.add_argument("--keep", default="0.75", help="share of a map's parameters that factors have (default 0.75)")
    add_options(parser, Factoring)
    parser.add_argument("--series", help="variants of one name belong together in tables (default: low-rank)")
    add_layerwise_arguments(parser)


def run(arguments: argparse.Namespace) -> None:
    """Factor, multiply back, and say what factors would save."""
    import logging
    from fractions import Fraction

    from excise.compress.low_rank import LowRank
    from excise.compress.recipe import check_scope
    from excise.errors import ExciseError, unknown
    from excise.tasks.measurement import About

    methods = ("whitened", "plain")
    if arguments.method not in methods:
        raise unknown("method", arguments.method, methods, where="--method")
    check_scope(arguments.scope)
    try:
        share = Fraction(arguments.keep)
    except (ValueError, ZeroDivisionError):
        share = Fraction(0)
    if not 0 < share < 1:
        raise ExciseError(
            f"--keep {arguments.keep}: must be above 0 and below 1; factors with as many parameters save nothing"
        )
    whitened = arguments.method == "whitened"
    manifest = change_layers(
        arguments,
        LowRank(share, whitened, arguments.scope),
        {"keep": str(share), "method": arguments.method, "scope": arguments.scope},
        what=f"low rank, {float(share):g} of the parameters of {arguments.scope} maps, {arguments.method}",
        about=About(
            kind="candidate" if whitened else "control",
            method="low-rank",
            series=arguments.series or "low-rank",
            unit="map parameter",
            size=float(1 - share),
        ),
    )
    total = manifest["total"]
    logging.getLogger(__name__).info(
        "%s: stored multiplied back, as large as before; factors would have %d of %d parameters",
        *(arguments.output, total["factors"], total["weights"]),
    )
