"""Measure what encoders cost on this machine: milliseconds of a query and of a batch of documents, parameters, bytes.

The encoders take turns. Times differ from machine to machine and from run to run; ratios are steadier.
"""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this stage."""
    from excise.config.options import add_options
    from excise.config.retrieval import Timing

    parser.add_argument("models", nargs="+", help="NAME=FOLDER of each encoder, the dense one first")
    add_options(parser, Timing)
    parser.add_argument("--device", default="cpu", help="auto, cpu, cuda, mps (default cpu)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of torch (default 1)")
    parser.add_argument("--measurements", type=Path, help="also write NAME.json of each encoder into this folder")
    parser.add_argument("--output", type=Path, required=True, help="costs, JSON")


def run(arguments: argparse.Namespace) -> None:
    """Load, time in turns, write, print a table."""
    from excise.artefacts import write_json
    from excise.errors import ExciseError
    from excise.models.encoder import load_encoder
    from excise.models.loading import device_type
    from excise.provenance import provenance
    from excise.retrieval.latency import measure
    from excise.retrieval.saving import size_info
    from excise.stages.options import set_threads
    from excise.tasks import encoder_cost
    from excise.tasks.files import write_measurements
    from excise.tasks.measurement import Measured
    from excise.tasks.retrieval import about_of

    named = dict(text.partition("=")[::2] for text in arguments.models)
    if len(named) < len(arguments.models) or not all(name and folder for name, folder in named.items()):
        raise ExciseError("give each encoder as NAME=FOLDER, with names that differ")
    threads = set_threads(arguments.threads)
    encoders = {name: load_encoder(folder, device=arguments.device) for name, folder in named.items()}
    times = measure(encoders, rounds=arguments.rounds)
    sizes = {name: size_info(encoder) for name, encoder in encoders.items()}
    settings = {"rounds": arguments.rounds, "threads": threads, "device": device_type(arguments.device)}
    packages = ("torch", "transformers")
    models = {name: encoder.info for name, encoder in encoders.items()}
    meta = provenance("encoder-cost", settings, packages=packages, models=models)
    write_json(arguments.output, meta, {"sizes": sizes, "times": times})
    for name, info in models.items() if arguments.measurements else ():
        own = {shape: each[name] for shape, each in times.items()}
        cost = encoder_cost.measure(own, sizes[name], settings)
        head = provenance("encoder-cost", settings, packages=packages, model=info)
        measured = Measured(variant=name, measurements=[cost], about=about_of(info), meta=head)
        write_measurements(arguments.measurements / f"{name}.json", measured)
    print("| encoder | parameters in layers | weights, MB | " + " | ".join(f"{shape}, ms" for shape in times) + " |")
    print("|---|---|---|" + "---|" * len(times))
    for name, size in sizes.items():
        cells = [f"{each[name]['milliseconds']:.1f} ({each[name]['speedup']:.2f}x)" for each in times.values()]
        weights = f"{size['weight_bytes'] / 1e6:.1f}"
        print(f"| {name} | {size['encoder_parameters']:,} | {weights} | {' | '.join(cells)} |")
