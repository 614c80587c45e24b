"""What the stages have in common that change a model layer by layer: compress and slice."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from excise.stages.options import set_threads, unescaped

if TYPE_CHECKING:
    from torch import Tensor

    from excise.artefacts import Json
    from excise.compress.change import Change, Place
    from excise.tasks.measurement import About


def add_layerwise_arguments(parser: argparse.ArgumentParser) -> None:
    """Calibration, what to compute in and on, and the folder to make."""
    from excise.config.compress import Calibrating
    from excise.config.options import add_options

    parser.add_argument("--calibration", type=Path, help="text to calibrate on: JSONL, a document per line, or plain")
    add_options(parser, Calibrating)
    parser.add_argument("--dtype", default="float32", help="what layers run in: float32, bfloat16 or float64")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda (default auto)")
    parser.add_argument("--threads", type=int, help="CPU threads of torch (default: torch's own choice)")
    parser.add_argument("--output", type=Path, required=True, help="folder to make")


def change_layers(
    arguments: argparse.Namespace,
    change: "Change",
    settings: "Json",
    *,
    what: str,
    about: "About",
    modules: tuple[str, ...] = (),
) -> "Json":
    """Check, calibrate, change every layer, write the folder.

    Args:
        arguments: with those of ``add_layerwise_arguments``, ``model`` and ``stage``.
        change: what is done to each layer.
        settings: for the provenance, beside the common ones.
        what: what the model is called after, behind the base model's name.
        about: what tables say of it.
        modules: modules of excise that were loaded by name.

    Returns:
        The manifest.

    Raises:
        ExciseError: the input does not fit, or a layer cannot be changed.
    """
    from dataclasses import asdict

    from excise.artefacts import read_json
    from excise.compress.driver import CALIBRATED, MANIFEST, Run, compress
    from excise.errors import ExciseError
    from excise.models.families import neuron_shape
    from excise.models.loading import identity, load_config
    from excise.progress import Progress
    from excise.provenance import provenance

    if arguments.output.resolve() in (arguments.model.resolve(), *arguments.model.resolve().parents):
        raise ExciseError(f"{arguments.output}: the model itself is in there; name another folder")
    place = _place(arguments)
    threads = set_threads(arguments.threads)
    layers = neuron_shape(load_config(arguments.model))[0]
    windows, text = _windows(arguments) if change.needs in CALIBRATED else (None, None)
    plan = Run(change, windows, not arguments.one_shot, place)
    base = identity(arguments.model, arguments.dtype)
    common = {"sequential": plan.sequential, "seed": arguments.seed, "device": place.device.type, "threads": threads}
    meta = provenance(
        arguments.stage,
        {**settings, **common},
        packages=("torch", "transformers"),
        modules=modules,
        model=base,
        calibration=text,
    )
    source = {"id": f"{base['id']}, {what}", "source": f"excise {arguments.stage}", "base": base}
    source["variant"] = asdict(about)
    with Progress(layers, "layers", arguments.stage) as progress:
        compress(arguments.model, arguments.output, plan, meta=meta, source=source, done=progress.advance)
    return read_json(arguments.output / MANIFEST)


def _place(arguments: argparse.Namespace) -> "Place":
    """What layers run in and on.

    Raises:
        ExciseError: there is no such dtype or device, or Gram matrices cannot be added up on it.
    """
    import torch

    from excise.compress.change import Place
    from excise.errors import ExciseError, unknown
    from excise.models.loading import DTYPES, resolve_device

    if arguments.dtype not in DTYPES:
        raise unknown("dtype", arguments.dtype, DTYPES, where="--dtype")
    device = resolve_device(arguments.device)
    if device.type == "mps":
        raise ExciseError("--device mps: it has no float64, which Gram matrices are added up in; use cpu")
    return Place(getattr(torch, arguments.dtype), device)


def _windows(arguments: argparse.Namespace) -> tuple["Tensor", "Json"]:
    """The calibration windows, and what provenance says of them."""
    import logging

    from excise.artefacts import sha256_file
    from excise.compress import calibration
    from excise.data.texts import documents, joined, text_rows
    from excise.errors import ExciseError
    from excise.models.encoding import load_encoder
    from excise.models.families import neuron_shape
    from excise.models.loading import load_config, refuse_beyond_positions

    config = load_config(arguments.model)
    if arguments.calibration is None:
        raise ExciseError("--calibration: this method measures the inputs of the maps; name a text file")
    refuse_beyond_positions(config, arguments.seqlen)
    separator = unescaped(arguments.separator)
    text = joined(text_rows(documents(arguments.calibration)), separator)
    encoder = load_encoder(arguments.model)
    ids = encoder.text(text)
    chosen = calibration.windows(ids, seqlen=arguments.seqlen, count=arguments.windows, seed=arguments.seed)
    if encoder.window_first is not None:  # in place of the token there: the family needs it
        chosen[:, 0] = encoder.window_first
    width = neuron_shape(config)[1]
    if chosen.numel() < 20 * width:
        logging.getLogger(__name__).warning(
            "%d calibration tokens for maps of up to %d inputs: weight updates will fit the calibration text better "
            "than others; 20 tokens per input (%d) are a start",
            *(chosen.numel(), width, 20 * width),
        )
    return chosen, {
        "sha256": sha256_file(arguments.calibration),
        "separator": separator,
        "windows": len(chosen),
        "seqlen": arguments.seqlen,
        "tokens_sha256": calibration.sha256(chosen),
    }
