"""Test collections: documents, queries, and which documents are relevant to which query.

In memory and in files a document is a row ``{id, text}`` and a query a row ``{id, text, relevant: {document: grade}}``
with positive grades only. Readers of other formats give a ``Raw`` collection; ``checked`` makes rows of it.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from excise.artefacts import Json, read_distinct
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
        pairs: (sentence, sentence, how alike people find them), by the ids of documents.
    """

    documents: list[tuple[str, str]]
    queries: list[tuple[str, str]]
    judgements: list[Judgement]
    dropped: Json = field(default_factory=dict)
    pairs: list[tuple[str, str, float]] = field(default_factory=list)


@dataclass(frozen=True)
class Collection:
    """Checked rows, and counts of what is in them and what was left out."""

    documents: list[Json]
    queries: list[Json]
    counts: Json
    pairs: list[Json] = field(default_factory=list)


def checked(raw: Raw, *, judged: bool = True) -> Collection:
    """Rows of a collection that make sense together.

    Judgements with a grade of 0 or less say "not relevant", as no judgement does, and are left out. Queries without a
    relevant document are left out: no metric is defined for them. Empty documents stay, since they take ranks.

    Args:
        raw: what a reader found.
        judged: whether there must be queries.

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
    if judged and not queries:
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
        "pairs": len(raw.pairs),
        "dropped": raw.dropped,
    }
    pairs = [
        {"id": f"p{number}", "first": first, "second": second, "similarity": similarity}
        for number, (first, second, similarity) in enumerate(raw.pairs)
    ]
    return Collection([{"id": name, "text": text} for name, text in raw.documents], queries, counts, pairs)


def _refuse_unknown(what: str, judged: set[str], known: Iterable[tuple[str, str]]) -> None:
    if unknown := sorted(judged - {name for name, _ in known}):
        raise ExciseError(
            f"the judgements name {len(unknown)} {what} ids that the collection does not have: "
            f"{', '.join(map(repr, unknown[:3]))}. A missing relevant document lowers every score: complete the "
            "collection, or take these lines out of the judgements."
        )


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


def read_pairs(path: str | Path, known: Iterable[str] = ()) -> tuple[Json, list[Json]]:
    """Read pairs ``{id, first, second, similarity}`` of sentences.

    Args:
        path: the file.
        known: ids of the sentences; every pair must be of these. Empty: not checked.

    Raises:
        ExciseError: the file cannot be read, is empty, an id occurs twice, a similarity is no number, or a sentence is
            missing.
    """
    meta, rows = read_distinct(path, ("id", "first", "second", "similarity"), "pairs")
    there = set(known)
    for row in rows:
        if isinstance(row["similarity"], bool) or not isinstance(row["similarity"], int | float):
            raise ExciseError(f"{path}: pair {row['id']!r}: similarity must be a number")
        for side in ("first", "second"):
            if there and row[side] not in there:
                raise ExciseError(f"{path}: pair {row['id']!r}: its {side} sentence {row[side]!r} is not there")
    return meta, rows
