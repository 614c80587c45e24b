"""Divide a collection: documents for calibration, documents that are searched, queries that choose, queries that judge.

Near-duplicates never fall into different parts. Without queries only the documents are divided.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from excise.artefacts import Json
    from excise.data.parts import Parts


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this stage."""
    from excise.config.options import add_options
    from excise.config.retrieval import CollectionSplit

    parser.add_argument("--documents", type=Path, required=True, help="documents, JSONL with id and text")
    parser.add_argument("--queries", type=Path, help="queries with their relevant documents, JSONL (default: none)")
    parser.add_argument(
        "--pairs", type=Path, help="pairs of sentences, JSONL: whole pairs calibrate or judge (default: none)"
    )
    parser.add_argument(
        "--apart-from",
        type=Path,
        nargs="*",
        default=[],
        help="documents and queries of other collections that judge: what nearly is one of them is not calibrated on",
    )
    add_options(parser, CollectionSplit)
    parser.add_argument("--seed", type=int, default=0, help="seed of the draw (default 0)")
    parser.add_argument("--output", type=Path, required=True, help="folder for the parts")


def run(arguments: argparse.Namespace) -> None:
    """Read, divide, write the parts that are not empty."""
    import logging

    from excise.artefacts import sha256_file, write_jsonl
    from excise.config.retrieval import CollectionSplit
    from excise.data import collections, prompts
    from excise.data.parts import apart, divide
    from excise.provenance import provenance

    meta, documents = collections.read_documents(arguments.documents)
    documents, short = _long_enough(documents, arguments.min_words)
    queries = collections.read_queries(arguments.queries)[1] if arguments.queries else []
    pairs = []
    if arguments.pairs:
        pairs = collections.read_pairs(arguments.pairs, (row["id"] for row in documents))[1]
        parts, pairs = _of_pairs(documents, pairs, arguments)
    else:
        parts = divide(
            documents,
            queries,
            calibration=arguments.calibration_documents,
            searched=arguments.searched_documents,
            tuning_fraction=arguments.tuning_fraction,
            relevant=(arguments.min_relevant, arguments.max_relevant),
            seed=arguments.seed,
        )
    others = [row["text"] for path in arguments.apart_from for row in collections.read_documents(path)[1]]
    calibration, tuning = apart(parts.calibration, others), apart(parts.tuning, others)
    counts = parts.counts | {
        "too_short": short,
        "calibration": len(calibration),
        "tuning_queries": len(tuning),
        "in_other_collections": len(parts.calibration) - len(calibration) + len(parts.tuning) - len(tuning),
    }
    settings = {
        "documents": sha256_file(arguments.documents),
        "queries": sha256_file(arguments.queries) if arguments.queries else None,
        "pairs": sha256_file(arguments.pairs) if arguments.pairs else None,
        "apart_from": [sha256_file(path) for path in arguments.apart_from],
        **{name: getattr(arguments, name) for name in CollectionSplit.model_fields},
        "seed": arguments.seed,
        "near_duplicate_jaccard": prompts.SIMILARITY,
        "near_duplicate_prefix_words": prompts.PREFIX_WORDS,
    }
    named = {
        "calibration": calibration,
        "documents": parts.documents,
        "tuning-queries": tuning,
        "test-queries": parts.test,
        "pairs": pairs,
    }
    for name, rows in named.items():
        label = meta.get("label", arguments.documents.stem)
        head = provenance("split-collection", settings, label=label, part=name, counts=counts)
        if rows:
            write_jsonl(arguments.output / f"{name}.jsonl", head, rows)
    logging.getLogger(__name__).info("%s", counts)


def _long_enough(documents: "list[Json]", least: int) -> "tuple[list[Json], int]":
    """The documents with at least so many words, and how many others there are.

    Raises:
        ExciseError: none has so many.
    """
    from excise.errors import ExciseError

    kept = [row for row in documents if len(row["text"].split()) >= least]
    if not kept:
        longest = max(len(row["text"].split()) for row in documents)
        raise ExciseError(f"--min-words {least}: the longest of {len(documents)} documents has {longest} words")
    return kept, len(documents) - len(kept)


def _of_pairs(
    sentences: "list[Json]", pairs: "list[Json]", arguments: argparse.Namespace
) -> "tuple[Parts, list[Json]]":
    """Parts of a collection of pairs, and the pairs that judge.

    Raises:
        ExciseError: an option is for searched documents or queries.
    """
    from excise.data.parts import Parts, divide_pairs
    from excise.errors import ExciseError

    if arguments.queries or arguments.searched_documents or arguments.tuning_fraction or arguments.min_words:
        raise ExciseError(
            "--pairs: all sentences of the judging pairs are embedded; --queries, --tuning-fraction, --min-words and "
            "--searched-documents are not for pairs"
        )
    calibration, judged, kept = divide_pairs(
        sentences, pairs, calibration=arguments.calibration_documents, seed=arguments.seed
    )
    counts = {"documents": len(judged), "pairs": len(kept), "pairs_of_calibration": len(pairs) - len(kept)}
    return Parts(calibration, judged, [], [], counts), kept
