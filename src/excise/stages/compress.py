"""Prune the weights of a model's linear maps and save it as a Hugging Face folder.

Layer by layer: memory holds one layer, whatever the model's depth. A run that was killed goes on after the last
finished layer when the same command is given again. N:M keeps N of every M inputs. magnitude and random
need no calibration.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from excise.stages.options import set_threads

if TYPE_CHECKING:
    from torch import Tensor

    from excise.artefacts import Json


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
    parser.add_argument(
        "--calibration", type=Path, help="text to calibrate on: JSONL with a document per line, or plain"
    )
    parser.add_argument("--separator", default=" ", help=r"between its documents; \n is a line break (default ' ')")
    parser.add_argument("--windows", type=int, default=128, help="calibration windows (default 128)")
    parser.add_argument("--seqlen", type=int, default=2048, help="tokens per window (default 2048)")
    parser.add_argument("--seed", type=int, help="draw the windows at random (default: the first ones)")
    parser.add_argument("--one-shot", action="store_true", help="measure every layer in the dense model")
    parser.add_argument("--dtype", default="float32", help="what layers run in: float32, bfloat16 or float64")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda (default auto)")
    parser.add_argument("--threads", type=int, help="CPU threads of torch (default: torch's own choice)")
    parser.add_argument("--output", type=Path, required=True, help="folder to make")


def run(arguments: argparse.Namespace) -> None:
    """Check, calibrate, prune, write."""
    import logging

    import torch

    from excise.artefacts import read_json
    from excise.compress import method, module_name
    from excise.compress.driver import MANIFEST, Run, compress
    from excise.compress.edit import Recipe
    from excise.compress.patterns import parse
    from excise.errors import ExciseError, unknown
    from excise.models.families import neuron_shape
    from excise.models.loading import DTYPES, identity, load_config, resolve_device
    from excise.progress import Progress
    from excise.provenance import provenance

    if arguments.dtype not in DTYPES:
        raise unknown("dtype", arguments.dtype, DTYPES, where="--dtype")
    device = resolve_device(arguments.device)
    if device.type == "mps":
        raise ExciseError("--device mps: it has no float64, which Gram matrices are added up in; use cpu")
    if arguments.output.resolve() in (arguments.model.resolve(), *arguments.model.resolve().parents):
        raise ExciseError(f"{arguments.output}: the model itself is in there; name another folder")
    threads = set_threads(arguments.threads)
    pattern = parse(arguments.pattern, arguments.group or method(arguments.method).group)
    recipe = Recipe(arguments.method, pattern, arguments.reconstruct, seed=arguments.seed or 0)
    config = load_config(arguments.model)
    windows, text = None, None
    if recipe.needs in ("norms", "gram"):
        windows, text = _windows(arguments, config.max_position_embeddings)
    plan = Run(
        recipe,
        windows,
        scope=arguments.scope,
        sequential=not arguments.one_shot,
        dtype=getattr(torch, arguments.dtype),
        device=device,
    )
    base = identity(arguments.model, arguments.dtype)
    meta = provenance(
        "compress",
        {
            "method": arguments.method,
            "pattern": str(pattern),
            "reconstruct": arguments.reconstruct,
            "scope": arguments.scope,
            "sequential": plan.sequential,
            "seed": arguments.seed,
            "device": device.type,
            "threads": threads,
        },
        packages=("torch", "transformers"),
        modules=(module_name(arguments.method),),
        model=base,
        calibration=text,
    )
    name = f"{base['id']}, {arguments.method}, {pattern}"
    with Progress(neuron_shape(config)[0], "layers", "compress") as progress:
        compress(
            arguments.model,
            arguments.output,
            plan,
            meta=meta,
            source={"id": name, "source": "excise compress", "base": base},
            done=progress.advance,
        )
    total = read_json(arguments.output / MANIFEST)["total"]
    logging.getLogger(__name__).info(
        "%s: %d of %d weights pruned, %d were zero before",
        arguments.output,
        total["zeros_made"],
        total["weights"],
        total["zeros_before"],
    )


def _windows(arguments: argparse.Namespace, positions: int) -> tuple["Tensor", "Json"]:
    """The calibration windows, and what provenance says of them."""
    import logging

    from excise.artefacts import sha256_file
    from excise.compress import calibration
    from excise.data.texts import documents
    from excise.errors import ExciseError
    from excise.models.families import neuron_shape
    from excise.models.loading import load_config, load_tokenizer

    if arguments.calibration is None:
        raise ExciseError(f"--method {arguments.method}: needs --calibration, a text file")
    if arguments.seqlen > positions:
        raise ExciseError(f"--seqlen {arguments.seqlen}: more than the model's {positions} positions")
    separator = arguments.separator.replace("\\n", "\n").replace("\\t", "\t")
    text = separator.join(documents(arguments.calibration))
    ids = load_tokenizer(arguments.model)(text, verbose=False)["input_ids"]
    chosen = calibration.windows(ids, seqlen=arguments.seqlen, count=arguments.windows, seed=arguments.seed)
    width = neuron_shape(load_config(arguments.model))[1]
    if chosen.numel() < 20 * width:
        logging.getLogger(__name__).warning(
            "%d calibration tokens for maps of up to %d inputs: weight updates will fit the calibration text better "
            "than others; 20 tokens per input (%d) are a start",
            chosen.numel(),
            width,
            20 * width,
        )
    return chosen, {
        "sha256": sha256_file(arguments.calibration),
        "separator": separator,
        "windows": len(chosen),
        "seqlen": arguments.seqlen,
        "tokens_sha256": calibration.sha256(chosen),
    }
