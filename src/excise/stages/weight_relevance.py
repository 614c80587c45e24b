"""Measure the relevance of every single weight of some layers: one file a layer, as large as the layer.

For pruning single weights only; neuron work never needs it. A range of layers is its own job, and needs eight bytes a
weight of that range beside the model.
"""

import argparse
from pathlib import Path

from excise.stages.options import add_model_arguments, set_threads


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this stage."""
    parser.add_argument("--method", default="lrp", help="lrp or lrp-cp (default lrp)")
    add_model_arguments(parser, spread=False)
    parser.add_argument(
        "--reference", type=Path, required=True, help="reference set, JSONL: id, input_ids, target_start"
    )
    parser.add_argument("--layers", help="FIRST:END, from 0, END excluded (default: all)")
    parser.add_argument("--objective", default="continuation", help="as for attribute (default continuation)")
    parser.add_argument("--form", default="signed", help="signed sum, or root of the sum of squares per token (token)")
    parser.add_argument("--batch-size", type=int, default=8, help="samples a batch (default 8)")
    parser.add_argument("--recompute", action="store_true", help="keep only layer inputs, recompute the rest")
    parser.add_argument("--output", type=Path, required=True, help="folder for layer-LLL.safetensors")


def run(arguments: argparse.Namespace) -> None:
    """Read, measure, write a file a layer."""
    from excise.artefacts import sha256_file, write_tensors
    from excise.attribution import OBJECTIVES, Options
    from excise.attribution.batches import make_batches, read_reference
    from excise.attribution.weight_relevance import FORMS, weight_relevance
    from excise.errors import ExciseError, unknown
    from excise.models.families import neuron_shape
    from excise.models.loading import SPREAD, identity, load_config, load_model, resolve_device
    from excise.provenance import provenance

    rules = {"lrp": "attnlrp", "lrp-cp": "cp"}
    if arguments.method not in rules:
        raise unknown("method", arguments.method, rules, where="--method")
    if arguments.form not in FORMS:
        raise unknown("form", arguments.form, FORMS, where="--form")
    if arguments.objective not in OBJECTIVES:
        raise unknown("objective", arguments.objective, OBJECTIVES, where="--objective")
    if arguments.device == SPREAD:
        raise ExciseError("--device spread: the relevance of weights is measured on one device (auto, cpu, cuda, mps)")
    threads = set_threads(arguments.threads)
    config = load_config(arguments.model)
    layers = parse_layers(arguments.layers, neuron_shape(config)[0])
    _, samples = read_reference(arguments.reference, config)
    device = resolve_device(arguments.device)
    model = load_model(arguments.model, dtype=arguments.dtype, device=str(device))
    found = weight_relevance(
        model,
        make_batches(samples, arguments.batch_size),
        layers,
        rule=rules[arguments.method],
        options=Options(objective=arguments.objective, recompute=arguments.recompute),
        form=arguments.form,
    )
    meta = provenance(
        "weight-relevance",
        {
            "objective": arguments.objective,
            "form": arguments.form,
            "batch_size": arguments.batch_size,
            "recompute": arguments.recompute,
            "device": device.type,
            "threads": threads,
        },
        packages=("torch", "transformers", "lxt"),
        method=arguments.method,
        model=identity(arguments.model, arguments.dtype),
        corpus={"sha256": sha256_file(arguments.reference), "samples": len(samples)},
    )
    for layer, tensors in zip(layers, found, strict=True):
        write_tensors(arguments.output / f"layer-{layer:03}.safetensors", {**meta, "layer": layer}, tensors)


def parse_layers(text: str | None, count: int) -> range:
    """``"4:8"`` -> layers 4 to 7.

    Raises:
        ExciseError: it does not read FIRST:END, or there are no such layers.
    """
    from excise.errors import ExciseError

    if text is None:
        return range(count)
    first, _, end = text.partition(":")
    if not (first.isdigit() and end.isdigit() and int(first) < int(end) <= count):
        raise ExciseError(f"--layers {text!r}: must be FIRST:END with 0 <= FIRST < END <= {count}")
    return range(int(first), int(end))
