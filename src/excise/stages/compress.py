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
    parser.add_argument("model", type=Path, help="folder of the model")
    parser.add_argument(
        "--method", default="alps", help="alps (default), sparsegpt, wanda, ria, clearcut, magnitude, random"
    )
    parser.add_argument("--pattern", default="0.5", help="share to prune (0.5, 50%%), or N:M with N kept (default 0.5)")
    parser.add_argument("--group", help="compare the weights of each row, matrix or layer (default: as in the paper)")
    parser.add_argument("--reconstruct", default="none", help="kept weights: none (default), obs or least-squares")
    parser.add_argument("--scope", default="all", help="maps to prune: all (default), attention or mlp")
    parser.add_argument("--permute", action="store_true", help="order neurons so that N:M keeps more of the MLP")
    parser.add_argument("--protect", type=Path, help="unit list whose weights stay; others are pruned in their place")
    add_layerwise_arguments(parser)


def run(arguments: argparse.Namespace) -> None:
    """Prune, and say how much."""
    import logging

    from excise.artefacts import sha256_file
    from excise.compress import method, module_name
    from excise.compress.edit import Prune, Recipe
    from excise.compress.patterns import parse
    from excise.edits.unit_list import check_fits, read_units
    from excise.models.loading import identity

    pattern = parse(arguments.pattern, arguments.group or method(arguments.method).group)
    recipe = Recipe(arguments.method, pattern, arguments.reconstruct, seed=arguments.seed or 0)
    protect = None
    if arguments.protect is not None:
        protect = read_units(arguments.protect)
        check_fits(protect, identity(arguments.model, "as on disk")["fingerprint"], where=str(arguments.protect))
    manifest = change_layers(
        arguments,
        Prune(recipe, arguments.scope, arguments.permute, protect),
        {
            "method": arguments.method,
            "pattern": str(pattern),
            "reconstruct": arguments.reconstruct,
            "scope": arguments.scope,
            "permute": arguments.permute,
            "protect": None if protect is None else sha256_file(arguments.protect),
        },
        what=f"{arguments.method}, {pattern}",
        modules=(module_name(arguments.method),),
    )
    total = manifest["total"]
    logging.getLogger(__name__).info(
        "%s: %d of %d weights pruned, %d were zero before",
        *(arguments.output, total["zeros_made"], total["weights"], total["zeros_before"]),
    )
