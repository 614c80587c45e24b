"""Prune the weights of a model's linear maps and save it as a Hugging Face folder.

Layer by layer: memory holds one layer, whatever the model's depth. A run that was killed goes on after the last
finished layer when the same command is given again. N:M keeps N of every M inputs. magnitude and random
need no calibration.
"""

import argparse
from pathlib import Path

from excise.stages.layerwise import add_layerwise_arguments, change_layers


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this stage."""
    from excise.config.compress import Pruning
    from excise.config.options import add_options

    parser.add_argument("model", type=Path, help="folder of the model")
    parser.add_argument("--pattern", default="0.5", help="share to prune (0.5, 50%%), or N:M with N kept (default 0.5)")
    add_options(parser, Pruning)
    parser.add_argument("--protect", type=Path, help="unit list whose weights stay; others are pruned in their place")
    parser.add_argument("--series", help="variants of one name belong together in tables (default: the method)")
    add_layerwise_arguments(parser)


def run(arguments: argparse.Namespace) -> None:
    """Prune, and say how much."""
    import logging

    from excise.artefacts import sha256_file
    from excise.compress import method, module_name
    from excise.compress.edit import Prune
    from excise.compress.patterns import KeepNofM, parse
    from excise.compress.recipe import Recipe
    from excise.edits.unit_list import check_fits, read_units
    from excise.models.loading import identity
    from excise.tasks.measurement import About

    pattern = parse(arguments.pattern, arguments.group or method(arguments.method).group)
    recipe = Recipe(arguments.method, pattern, arguments.reconstruct, seed=arguments.seed or 0)
    protect = None
    if arguments.protect is not None:
        protect = read_units(arguments.protect)
        check_fits(protect, identity(arguments.model, "as on disk")["fingerprint"], where=str(arguments.protect))
    manifest = change_layers(
        arguments,
        Prune(recipe, arguments.scope, arguments.permute, protect, arguments.shares),
        {
            "method": arguments.method,
            "pattern": str(pattern),
            "reconstruct": arguments.reconstruct,
            "scope": arguments.scope,
            "permute": arguments.permute,
            "shares": arguments.shares,
            "protect": None if protect is None else sha256_file(arguments.protect),
        },
        what=f"{arguments.method}, {pattern}",
        about=About(
            kind="control" if arguments.method == "random" else "candidate",
            method=arguments.method,
            series=arguments.series or arguments.method,
            unit="weight",
            size=float(pattern.pruned),
            pattern=f"{pattern.kept}:{pattern.size}" if isinstance(pattern, KeepNofM) else None,
        ),
        modules=(module_name(arguments.method),),
    )
    total = manifest["total"]
    logging.getLogger(__name__).info(
        "%s: %d of %d weights pruned, %d were zero before",
        *(arguments.output, total["zeros_made"], total["weights"], total["zeros_before"]),
    )
