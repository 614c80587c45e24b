"""Judge an encoder on a test collection: nDCG@10, recall@100 and MRR@10 per query, and likeness to the dense one.

With the dense model's embeddings besides, the asymmetric case is judged too: documents by the dense model, queries by
this one, so that an index that is there already stays. Without queries only the likeness is measured.
"""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this stage."""
    from excise.stages.options import add_model_arguments

    parser.add_argument("--documents", type=Path, required=True, help="the searched documents, JSONL")
    parser.add_argument("--queries", type=Path, help="queries with their relevant documents, JSONL (default: none)")
    add_model_arguments(parser, model="folder of the encoder, which embeds them", required=False, spread=False)
    parser.add_argument(
        "--vectors", type=Path, help="embeddings of both by the encoder (excise embed), without --model"
    )
    parser.add_argument("--dense", type=Path, help="embeddings of both by the dense model (default: none)")
    parser.add_argument("--variant", required=True, help="name of the encoder in tables")
    parser.add_argument("--name", default="collection", help="name of the collection in addresses (default collection)")
    parser.add_argument("--output", type=Path, required=True, help="measurements, JSON")


def run(arguments: argparse.Namespace) -> None:
    """Read, check that all belongs together, rank, judge, write."""
    from excise.artefacts import sha256_file
    from excise.data.collections import read_documents, read_queries
    from excise.errors import ExciseError
    from excise.retrieval.texts import read_embeddings
    from excise.stages.embed import given, write_judged
    from excise.tasks.retrieval import measure

    head, documents = read_documents(arguments.documents)
    queries = read_queries(arguments.queries)[1] if arguments.queries else []
    files = {"documents": sha256_file(arguments.documents)}
    if arguments.queries:
        files["queries"] = sha256_file(arguments.queries)
    known = {row["id"] for row in documents}
    for row in queries:
        if missing := sorted(row["relevant"].keys() - known):
            raise ExciseError(
                f"{arguments.queries}: query {row['id']!r}: its relevant document {missing[0]!r} is not searched"
            )
    if arguments.dense is None and not queries:
        raise ExciseError("nothing to measure: give --queries, or --dense to compare embeddings with, or both")
    meta, vectors = given(arguments, files)
    dense = read_embeddings(arguments.dense, files)[1] if arguments.dense else None
    measurements = measure(arguments.name, head.get("label", arguments.name), vectors, dense, documents, queries, files)
    packages = ("ir-measures", "pytrec-eval-terrier", "torch") if queries else ("torch",)
    write_judged(arguments, "retrieve", files, meta, measurements, packages)
