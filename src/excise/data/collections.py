"""Test collections: documents, queries, and which documents are relevant to which query.

In memory and in files a document is a row ``{id, text}`` and a query a row ``{id, text, relevant: {document: grade}}``
with positive grades only. Readers of other formats give a ``Raw`` collection; ``checked`` makes rows of it.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from excise.artefacts import Json, parse_json, read_distinct
from excise.data.texts import read_text, records
from excise.errors import ExciseError

Judgement = tuple[str, str, int]
"""(query, document, grade)."""


@dataclass
class Raw:
    """What a reader found, unchecked.

    Attributes:
        documents: (id, text) in the order of the source.
        queries: (id, text).
        judgements: (query, document, grade).
        dropped: what the reader left out, counted by reason.
    """

    documents: list[tuple[str, str]]
    queries: list[tuple[str, str]]
    judgements: list[Judgement]
    dropped: Json = field(default_factory=dict)


@dataclass(frozen=True)
class Collection:
    """Checked rows, and counts of what is in them and what was left out."""

    documents: list[Json]
    queries: list[Json]
    counts: Json


def checked(raw: Raw) -> Collection:
    """Rows of a collection that make sense together.

    Judgements with a grade of 0 or less say "not relevant", as no judgement does, and are left out. Queries without a
    relevant document are left out: no metric is defined for them. Empty documents stay, since they take ranks.

    Raises:
        ExciseError: an id occurs twice, a judgement names an unknown query or document or is given twice with another
            grade, a query is empty, or no query with a relevant document is left.
    """
    for what, rows in (("document", raw.documents), ("query", raw.queries)):
        twice = [name for name, count in Counter(name for name, _ in rows).items() if count > 1]
        if twice:
            raise ExciseError(
                f"{len(twice)} {what} ids occur more than once, for example {twice[0]!r}: mend the source"
            )
    relevant: dict[str, dict[str, int]] = defaultdict(dict)
    _refuse_unknown("query", {query for query, _, _ in raw.judgements}, raw.queries)
    _refuse_unknown("document", {document for _, document, _ in raw.judgements}, raw.documents)
    for query, document, grade in raw.judgements:
        if relevant[query].setdefault(document, grade) != grade:
            raise ExciseError(f"query {query!r}, document {document!r}: judged twice, with different grades")
    queries = []
    for name, text in raw.queries:
        grades = {document: grade for document, grade in relevant[name].items() if grade > 0}
        if grades and not text.strip():
            raise ExciseError(f"query {name!r} is judged, but its text is empty")
        if grades:
            queries.append({"id": name, "text": text, "relevant": grades})
    if not queries:
        raise ExciseError(
            f"of {len(raw.queries)} queries none has a relevant document ({len(raw.judgements)} judgements were read)"
        )
    counts = {
        "documents": len(raw.documents),
        "empty_documents": sum(not text.strip() for _, text in raw.documents),
        "repeated_texts": len(raw.documents) - len({text for _, text in raw.documents}),
        "queries": len(queries),
        "queries_without_relevant": len(raw.queries) - len(queries),
        "relevant": sum(len(query["relevant"]) for query in queries),
        "dropped": raw.dropped,
    }
    return Collection([{"id": name, "text": text} for name, text in raw.documents], queries, counts)


def _refuse_unknown(what: str, judged: set[str], known: Iterable[tuple[str, str]]) -> None:
    if unknown := sorted(judged - {name for name, _ in known}):
        raise ExciseError(
            f"the judgements name {len(unknown)} {what} ids that the collection does not have: "
            f"{', '.join(map(repr, unknown[:3]))}. A missing relevant document lowers every score: complete the "
            "collection, or take these lines out of the judgements."
        )


def _column(where: str, row: Json, name: str) -> Any:
    if name not in row:
        raise ExciseError(f"{where}: no field {name!r}; it has {', '.join(map(str, row))}")
    return row[name]


def beir(folder: Path, *, split: str) -> Raw:
    """A folder as BEIR has it: ``corpus.jsonl``, ``queries.jsonl``, ``qrels/SPLIT.tsv`` (each also with ``.gz``).

    The text of a document is its title, a space and its text, as BEIR's own evaluation joins them
    (Thakur et al. 2021, arXiv 2104.08663).

    Raises:
        ExciseError: a file is missing or a line is broken.
    """
    documents, queries, judgements = [], [], []
    for where, row in records(_file(folder, "corpus.jsonl")):
        text = f"{row.get('title') or ''} {_column(where, row, 'text')}".strip()
        documents.append((str(_column(where, row, "_id")), text))
    for where, row in records(_file(folder, "queries.jsonl")):
        queries.append((str(_column(where, row, "_id")), str(_column(where, row, "text"))))
    for where, row in records(_file(folder, f"qrels/{split}.tsv")):
        grade = _grade(where, _column(where, row, "score"))
        judgements.append((_column(where, row, "query-id"), _column(where, row, "corpus-id"), grade))
    judged = {query for query, _, _ in judgements}
    others = [name for name, _ in queries if name not in judged]
    kept = [(name, text) for name, text in queries if name in judged]
    return Raw(documents, kept, judgements, {"queries_of_other_splits": len(others)})


def _file(folder: Path, name: str) -> Path:
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            return path
    there = ", ".join(sorted(path.name for path in (folder / name).parent.glob("*"))[:8]) or "nothing"
    raise ExciseError(f"{folder.name}: no {name} in it (there: {there}); is it a collection in this format?")


def _grade(where: str, text: object) -> int:
    try:
        return int(str(text))
    except ValueError as error:
        raise ExciseError(f"{where}: the grade {text!r} is not a whole number") from error


_LINK = re.compile(r"\[([^\]\[]*)\]\([^()]*\)")


def plain(text: str) -> str:
    """Text without the targets of markdown links, on one line.

    In Semanlink's comments a target names the tag that is to be found (``[NER](tag:named_entity_recognition)``).
    """
    return " ".join(_LINK.sub(r"\1", text).split())


def semanlink(folder: Path, *, split: str) -> Raw:
    """The bookmarks of one person, as cherche 2.2.1 carries them: ``docs.json`` and ``tags.json``.

    A query is the label of a tag, relevant are the documents that carry it. Documents that share an address with an
    earlier one or have no title are left out, and so are tags without a label. The judgements are incomplete, as a
    document without a tag may still be about it: scores are lower bounds, comparisons of variants are fair.

    Args:
        folder: holds both files.
        split: ``titles``, or ``full`` for title, comment and, where there is one, arXiv abstract.

    Raises:
        ExciseError: a file is missing or has another shape, or there is no such view.
    """
    if split not in ("titles", "full"):
        raise ExciseError(f"--split {split}: semanlink has the views titles and full")
    rows, tags = (parse_json(read_text(_file(folder, name)), f"{name}:") for name in ("docs.json", "tags.json"))
    if not isinstance(rows, list) or not isinstance(tags, dict):
        raise ExciseError(f"{folder.name}: docs.json must be a list and tags.json an object")
    documents: dict[str, str] = {}
    judgements: list[Judgement] = []
    labels = {name: (tag.get("prefLabel") or [""])[0] for name, tag in tags.items()}
    unlabelled = set()
    for row in rows:
        title = plain(row["title"])
        if not title or row["document"] in documents:
            continue
        more = [] if split == "titles" else [plain(row["comment"]), plain(row["arxiv_summary"])]
        documents[row["document"]] = " ".join(part for part in (title, *more) if part)
        for tag in dict.fromkeys(row["tag"]):
            if labels.get(tag, "").strip():
                judgements.append((tag, row["document"], 1))
            else:
                unlabelled.add(tag)
    queries = [(name, label) for name, label in labels.items() if label.strip()]
    dropped = {"documents": len(rows) - len(documents), "unlabelled_tags": len(unlabelled)}
    return Raw(list(documents.items()), queries, judgements, dropped)


FORMATS: Mapping[str, Callable[..., Raw]] = {"beir": beir, "semanlink": semanlink}
"""Readers of a folder, by the name of the format."""

DEFAULT_SPLIT = {"beir": "test", "semanlink": "titles"}


def read_documents(path: str | Path) -> tuple[Json, list[Json]]:
    """Read documents or texts ``{id, text}``.

    Raises:
        ExciseError: the file cannot be read, is empty, or an id occurs twice.
    """
    return read_distinct(path, ("id", "text"), "documents")


def read_queries(path: str | Path) -> tuple[Json, list[Json]]:
    """Read queries ``{id, text, relevant}``.

    Raises:
        ExciseError: the file cannot be read, is empty, an id occurs twice, or a query has no relevant document.
    """
    meta, rows = read_distinct(path, ("id", "text", "relevant"), "queries")
    for row in rows:
        grades = row["relevant"]
        if not isinstance(grades, dict) or not grades or not all(isinstance(g, int) and g > 0 for g in grades.values()):
            raise ExciseError(
                f"{path}: query {row['id']!r}: relevant must be {{document: grade above 0}}, and not empty"
            )
    return meta, rows
