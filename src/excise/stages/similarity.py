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
    from excise.artefacts import sha256_file
    from excise.data.collections import read_documents, read_pairs
    from excise.retrieval.texts import read_embeddings
    from excise.stages.embed import given, write_judged
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
    write_judged(arguments, "similarity", settings, meta, measurements, ("scipy", "torch"))
