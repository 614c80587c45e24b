"""Readers of test collections: each gives what it found, unchecked, as a ``collections.Raw``."""

import math
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from excise.artefacts import Json, parse_json
from excise.data.collections import Judgement, Raw
from excise.data.texts import read_text, records
from excise.data.trec import trec
from excise.errors import ExciseError


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
        split: ``titles``; ``full`` for title, comment and, where there is one, arXiv abstract; ``abstracts`` for the
            bookmarks that have an abstract alone, with title and abstract.

    Raises:
        ExciseError: a file is missing or has another shape, or there is no such view.
    """
    if split not in ("titles", "full", "abstracts"):
        raise ExciseError(f"--split {split}: semanlink has the views titles, full and abstracts")
    rows, tags = (parse_json(read_text(_file(folder, name)), f"{name}:") for name in ("docs.json", "tags.json"))
    if not isinstance(rows, list) or not isinstance(tags, dict):
        raise ExciseError(f"{folder.name}: docs.json must be a list and tags.json an object")
    documents: dict[str, str] = {}
    judgements: list[Judgement] = []
    labels = {name: (tag.get("prefLabel") or [""])[0] for name, tag in tags.items()}
    unlabelled = set()
    for row in rows:
        title = plain(row["title"])
        if not title or row["document"] in documents or (split == "abstracts" and not row["arxiv_summary"]):
            continue
        fields = {"titles": (), "full": ("comment", "arxiv_summary"), "abstracts": ("arxiv_summary",)}[split]
        more = [plain(row[field]) for field in fields]
        documents[row["document"]] = " ".join(part for part in (title, *more) if part)
        for tag in dict.fromkeys(row["tag"]):
            if labels.get(tag, "").strip():
                judgements.append((tag, row["document"], 1))
            else:
                unlabelled.add(tag)
    queries = [(name, label) for name, label in labels.items() if label.strip()]
    dropped = {"documents": len(rows) - len(documents), "unlabelled_tags": len(unlabelled)}
    return Raw(list(documents.items()), queries, judgements, dropped)


def smart(folder: Path, *, split: str) -> Raw:  # noqa: ARG001 (the interface's)
    """The form of the SMART system, as Cranfield, MED, CISI and CACM come: one file each, told apart by their names.

    A text is title (``.T``) and body (``.W``); where the body begins with the title it is not repeated. Queries are
    numbered by their place in the file, as Cranfield's judgements number them. All judged documents are relevant alike
    but for those of code -1: Cranfield's other codes are documented in both directions.

    Args:
        folder: holds ``*.all*``, ``*.qry*`` and ``*rel``.
        split: not used.

    Raises:
        ExciseError: a file is missing or ambiguous, or a line of the judgements is broken.
    """
    documents = [(row["I"], _titled(row)) for row in _smart_records(_one(folder, "*.all*"))]
    queries = [(str(n), _titled(row)) for n, row in enumerate(_smart_records(_one(folder, "*.qry*")), 1)]
    path = _one(folder, "*rel")
    lines = [line.split() for line in read_text(path).splitlines() if line.strip()]
    if broken := next((line for line in lines if len(line) < 2 or not all(map(_is_number, line))), None):
        raise ExciseError(f"{path.name}: {' '.join(broken)!r} is not a judgement: query, document and numbers")
    document = 2 if all(len(line) == 4 and line[1] == "0" for line in lines) else 1  # trec_eval's columns, or SMART's
    kept = [line for line in lines if line[-1] != "-1"]
    judged = dict.fromkeys((str(int(line[0])), str(int(line[document])), 1) for line in kept)
    return Raw(documents, queries, list(judged), {"judgements_of_code_-1": len(lines) - len(kept)})


def _is_number(text: str) -> bool:
    return re.fullmatch(r"-?\d+(\.\d+)?", text) is not None


def _one(folder: Path, pattern: str) -> Path:
    """The one file whose name, in lower case, matches."""
    found = [path for path in sorted(folder.glob("*")) if path.is_file() and Path(path.name.lower()).match(pattern)]
    if len(found) != 1:
        there = ", ".join(path.name for path in found or sorted(folder.glob("*"))[:8]) or "nothing"
        raise ExciseError(f"{folder.name}: expected one file {pattern}, found: {there}")
    return found[0]


def _smart_records(path: Path) -> Iterator[Json]:
    """Fields of each record by their letter; ``I`` is its number."""
    row: dict[str, list[str]] = {}
    field = ""
    for line in read_text(path).splitlines():
        if mark := re.fullmatch(r"\.([A-Z])(?:\s+(\d+))?\s*", line):
            if mark[1] == "I":
                if row:
                    yield {name: " ".join(" ".join(part).split()) for name, part in row.items()}
                if mark[2] is None:
                    raise ExciseError(f"{path.name}: {line!r}: a record begins with .I and its number")
                row = {"I": [str(int(mark[2]))]}
            field = mark[1]
        elif row and field != "I":
            row.setdefault(field, []).append(line)
        elif line.strip():
            raise ExciseError(f"{path.name}: {line[:60]!r} belongs to no record; expected .I NUMBER first")
    if row:
        yield {name: " ".join(" ".join(part).split()) for name, part in row.items()}


def _titled(row: Json) -> str:
    title, body = row.get("T", ""), row.get("W", "")
    return body if body.startswith(title) else f"{title} {body}".strip()


PLAIN = (".txt", ".md", ".utf8")
RECORDS = (".jsonl", ".json", ".csv", ".tsv", ".parquet")


def documents(folder: Path, *, split: str) -> Raw:  # noqa: ARG001 (the interface's)
    """Documents alone: every text file below a folder is one, and every record of a structured file.

    A record's text is its ``title`` and ``text``; its id is ``id`` or ``_id``, else the file and its place there.

    Args:
        folder: or one file.
        split: not used.

    Raises:
        ExciseError: no file can be read as text, or a record has no text.
    """
    found: list[tuple[str, str]] = []
    other = 0
    for path in [folder] if folder.is_file() else sorted(path for path in folder.rglob("*") if path.is_file()):
        suffix = (path.with_suffix("") if path.suffix == ".gz" else path).suffix.lower()
        name = path.name if folder.is_file() else path.relative_to(folder).as_posix()
        if suffix in PLAIN:
            found.append((name, " ".join(read_text(path).split())))
        elif suffix in RECORDS:
            for number, (where, row) in enumerate(records(path), 1):
                text = f"{row.get('title') or ''} {_column(where, row, 'text')}".strip()
                found.append((str(row.get("id") or row.get("_id") or f"{name}:{number}"), text))
        else:
            other += 1
    if not found:
        raise ExciseError(f"{folder.name}: no documents; expected files that end with {', '.join(PLAIN + RECORDS)}")
    return Raw(found, [], [], {"files_that_are_no_text": other})


def pairs(folder: Path, *, split: str) -> Raw:  # noqa: ARG001 (the interface's)
    """Pairs of sentences with how alike people find them, as JSTS (JGLUE) and STS come.

    A record has ``sentence1``, ``sentence2`` and ``label`` (or ``score``). A sentence that comes twice is one document.

    Args:
        folder: with one structured file, or the file.
        split: not used.

    Raises:
        ExciseError: there is not one such file, a field is missing, or a label is no number.
    """
    files = [folder] if folder.is_file() else [path for path in sorted(folder.glob("*")) if path.suffix in RECORDS]
    if len(files) != 1:
        raise ExciseError(f"{folder.name}: expected one file that ends with {', '.join(RECORDS)}, found {len(files)}")
    ids: dict[str, str] = {}
    found = []
    for where, row in records(files[0]):
        sides = [" ".join(str(_column(where, row, name)).split()) for name in ("sentence1", "sentence2")]
        label = row["score"] if "label" not in row and "score" in row else _column(where, row, "label")
        try:
            similarity = float(label)
        except (TypeError, ValueError) as error:
            raise ExciseError(f"{where}: the label {label!r} is not a number") from error
        if not math.isfinite(similarity) or not all(sides):
            raise ExciseError(f"{where}: a sentence is empty, or the label is not finite")
        first, second = (ids.setdefault(text, f"s{len(ids)}") for text in sides)
        found.append((first, second, similarity))
    if len({similarity for _, _, similarity in found}) < 2:
        raise ExciseError(f"{files[0].name}: {len(found)} pairs, all labelled alike: nothing can be ranked")
    return Raw([(name, text) for text, name in ids.items()], [], [], pairs=found)


FORMATS: Mapping[str, Callable[..., Raw]] = {
    "beir": beir,
    "smart": smart,
    "trec": trec,
    "semanlink": semanlink,
    "documents": documents,
    "pairs": pairs,
}
"""Readers of a folder, by the name of the format."""

WITHOUT_QUERIES = ("documents", "pairs")
"""Formats that hold no queries."""

WITH_PAIRS = ("pairs",)
"""Formats that hold pairs of sentences."""

DEFAULT_SPLIT = {"beir": "test", "semanlink": "titles"}
