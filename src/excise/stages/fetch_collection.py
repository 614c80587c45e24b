"""Fetch a test collection: documents, queries, and which documents are relevant to which query.

Formats: beir (corpus.jsonl, queries.jsonl, qrels/SPLIT.tsv), smart (Cranfield's), trec (TREC's, MS MARCO's), semanlink
(docs.json and tags.json, as cherche carries them), documents (text files or JSONL, without queries), pairs (of
sentences, as JSTS).
"""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this stage."""
    from excise.config.options import add_options
    from excise.config.retrieval import CollectionSource

    add_options(parser, CollectionSource)
    parser.add_argument(
        "--cache", type=Path, default=Path("resources/wheels"), help="keeps packages (default resources/wheels)"
    )
    parser.add_argument("--documents", type=Path, required=True, help="documents, JSONL (written)")
    parser.add_argument("--queries", type=Path, help="queries with their relevant documents, JSONL (written)")
    parser.add_argument("--pairs", type=Path, help="pairs of sentences, JSONL (written, for --format pairs)")


def run(arguments: argparse.Namespace) -> None:
    """Fetch, read, check, write."""
    import logging

    from excise.artefacts import write_jsonl
    from excise.data.collection_formats import DEFAULT_SPLIT, FORMATS, WITH_PAIRS, WITHOUT_QUERIES
    from excise.data.collections import checked
    from excise.data.sources import fetched, parse
    from excise.errors import ExciseError
    from excise.provenance import provenance

    judged = arguments.format not in WITHOUT_QUERIES
    if judged != (arguments.queries is not None):
        holds = "queries; say with --queries where to put them" if judged else "no queries; leave --queries out"
        raise ExciseError(f"--format {arguments.format}: such a collection has {holds}")
    paired = arguments.format in WITH_PAIRS
    if paired != (arguments.pairs is not None):
        holds = "pairs; say with --pairs where to put them" if paired else "no pairs; leave --pairs out"
        raise ExciseError(f"--format {arguments.format}: such a collection has {holds}")
    source = parse(arguments.source)
    split = arguments.split or DEFAULT_SPLIT.get(arguments.format)
    with fetched(source, cache=arguments.cache, sha256=arguments.sha256) as got:
        if judged and not got.files[0].is_dir():
            raise ExciseError(f"{source.name}: a collection is a folder, not {got.files[0].name}")
        found = checked(FORMATS[arguments.format](got.files[0], split=split), judged=judged)
        facts = got.facts
    meta = provenance(
        "fetch-collection",
        {**facts, "format": arguments.format, "split": split},
        label=arguments.label or source.name,
        licence=arguments.licence,
        counts=found.counts,
    )
    write_jsonl(arguments.documents, meta, found.documents)
    if judged:
        write_jsonl(arguments.queries, meta, found.queries)
    if paired:
        write_jsonl(arguments.pairs, meta, found.pairs)
    logging.getLogger(__name__).info("%s: %s", meta["label"], found.counts)
