"""Time one layer of an encoder with fewer neurons and fewer heads: the table that a budget of time is spent by."""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this stage."""
    from excise.config.options import add_options
    from excise.config.retrieval import Timing

    parser.add_argument("--model", type=Path, required=True, help="folder of a dense encoder")
    add_options(parser, Timing)
    parser.add_argument("--device", default="cpu", help="auto, cpu, cuda, mps (default cpu)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of torch (default 1)")
    parser.add_argument("--output", type=Path, required=True, help="times, JSON")


def run(arguments: argparse.Namespace) -> None:
    """Load, time, write."""
    import logging

    from excise.artefacts import write_json
    from excise.models.encoder import load_encoder, refuse_cut
    from excise.models.loading import device_type
    from excise.provenance import provenance
    from excise.retrieval.budget import latencies
    from excise.stages.options import set_threads

    threads = set_threads(arguments.threads)
    dense = load_encoder(arguments.model, device=arguments.device)
    refuse_cut(dense, arguments.model)
    settings = {"rounds": arguments.rounds, "threads": threads, "device": device_type(arguments.device)}
    meta = provenance("encoder-latency", settings, packages=("torch", "transformers"), model=dense.info)
    table = latencies(dense, rounds=arguments.rounds)
    write_json(arguments.output, meta, table)
    for kind, rows in table["saved"].items():
        said = ", ".join(f"{count}: {saved:.2f}" for count, saved in rows)
        logging.getLogger(__name__).info("milliseconds that a layer saves with so many %s: %s", kind, said)
