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
    parser.add_argument("--relevance", type=Path, help="folder that excise weight-relevance wrote (method lrp)")
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
    measured = _relevance(arguments, method(arguments.method).needs)
    manifest = change_layers(
        arguments,
        Prune(recipe, arguments.scope, arguments.permute, protect, arguments.shares, arguments.relevance),
        {
            "method": arguments.method,
            "pattern": str(pattern),
            "reconstruct": arguments.reconstruct,
            "scope": arguments.scope,
            "permute": arguments.permute,
            "shares": arguments.shares,
            "protect": None if protect is None else sha256_file(arguments.protect),
            "relevance": measured,
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


def _relevance(arguments: argparse.Namespace, needs: str) -> dict[str, object] | None:
    """What provenance says of the relevance of the weights, where the method needs it.

    Raises:
        ExciseError: it is missing, is not of all layers of this model, or nothing needs it.
    """
    from excise.artefacts import read_tensors, sha256_file
    from excise.errors import ExciseError
    from excise.models.families import neuron_shape
    from excise.models.loading import identity, load_config

    if (needs == "relevance") != (arguments.relevance is not None):
        raise ExciseError(
            f"--method {arguments.method}, --relevance {arguments.relevance}: lrp needs the folder that excise "
            "weight-relevance wrote, other methods none"
        )
    if arguments.relevance is None:
        return None
    layers = neuron_shape(load_config(arguments.model))[0]
    files = [arguments.relevance / f"layer-{layer:03}.safetensors" for layer in range(layers)]
    made = read_tensors(files[0])[0]
    for file in files[1:]:
        if {**read_tensors(file)[0], "layer": 0} != {**made, "layer": 0}:
            raise ExciseError(f"{file}: measured in another way than {files[0].name}; measure all layers anew")
    fingerprint = identity(arguments.model, "as on disk")["fingerprint"]
    if made["model"]["fingerprint"] != fingerprint:
        raise ExciseError(f"{arguments.relevance}: measured on another model; run excise weight-relevance on this one")
    return {"form": made["settings"]["form"], "sha256": [sha256_file(file) for file in files]}
