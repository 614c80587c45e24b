"""Judge an encoder on pairs of sentences: do its cosines rise with how alike people find them (Spearman, Pearson)?"""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this stage."""
    from excise.stages.options import add_model_arguments

    parser.add_argument("--sentences", type=Path, required=True, help="the sentences, JSONL with id and text")
    parser.add_argument("--pairs", type=Path, required=True, help="pairs of them with their similarity, JSONL")
    add_model_arguments(parser, model="folder of the encoder, which embeds them", required=False, spread=False)
    parser.add_argument("--vectors", type=Path, help="embeddings by the encoder (excise embed), without --model")
    parser.add_argument("--dense", type=Path, help="embeddings by the dense model (default: none)")
    parser.add_argument("--variant", required=True, help="name of the encoder in tables")
    parser.add_argument("--name", default="pairs", help="name of the collection in addresses (default pairs)")
    parser.add_argument("--output", type=Path, required=True, help="measurements, JSON")


def run(arguments: argparse.Namespace) -> None:
    """Read, check that all belongs together, correlate, write."""
    import logging

    from excise.artefacts import sha256_file
    from excise.data.collections import read_documents, read_pairs
    from excise.provenance import provenance
    from excise.retrieval.texts import read_embeddings
    from excise.stages.embed import given
    from excise.tasks.files import write_measurements
    from excise.tasks.measurement import Measured
    from excise.tasks.retrieval import about_of
    from excise.tasks.similarity import measure

    head, sentences = read_documents(arguments.sentences)
    _, pairs = read_pairs(arguments.pairs, (row["id"] for row in sentences))
    files = {"sentences": sha256_file(arguments.sentences)}
    meta, vectors = given(arguments, files)
    dense = read_embeddings(arguments.dense, files)[1] if arguments.dense else None
    settings = files | {"pairs": sha256_file(arguments.pairs)}
    measurements = measure(
        arguments.name, head.get("label", arguments.name), vectors, dense, sentences, pairs, settings
    )
    written = provenance(
        "similarity",
        settings | {"variant": arguments.variant, "name": arguments.name},
        packages=("scipy", "torch"),
        model=meta["model"],
        device=meta["device"],
        embeddings=meta["settings"] | {"counts": meta["counts"]},
    )
    about = about_of(meta["model"])
    measured = Measured(variant=arguments.variant, measurements=measurements, about=about, meta=written)
    write_measurements(arguments.output, measured)
    for one in measurements:
        said = ", ".join(f"{name} {metric.figure:.4f}" for name, metric in one.metrics.items())
        logging.getLogger(__name__).info("%s: %s: %s", arguments.variant, one.label, said)
