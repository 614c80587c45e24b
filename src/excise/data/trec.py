"""Read a test collection in the files of TREC: documents and topics with tags, or as MS MARCO has them; qrels."""

import html
import re
from collections.abc import Iterator
from pathlib import Path

from excise.data.collections import Judgement, Raw
from excise.data.texts import read_text
from excise.errors import ExciseError

DOCUMENTS = ("documents", "corpus", "collection")
TOPICS = ("topics", "queries")
JUDGEMENTS = ("qrels",)


def trec(folder: Path, *, split: str | None) -> Raw:
    """Documents, topics and judgements, told apart by the beginnings of their names.

    Documents (``documents*``, ``corpus*``, ``collection*``; one file, or a folder of files) stand between ``<DOC>`` and
    ``</DOC>``, with ``<DOCNO>`` and what the tags of a title and of ``<TEXT>`` hold; or they are lines ``ID<tab>text``.
    Topics (``topics*``, ``queries*``) are ``<top>`` with ``<num>`` and ``<title>``, ``<topic number="N">`` with
    ``<query>``, or lines ``ID<tab>text``. Judgements (``qrels*``) have the four columns of trec_eval; a grade below 0
    is that of a document that is not relevant. Each file also with ``.gz``.

    Args:
        folder: holds the files.
        split: a part of the names of topics and judgements, where there are several of a kind (``dev``).

    Raises:
        ExciseError: a file is missing or ambiguous, or not in this form.
    """
    places = _find(folder, DOCUMENTS, None)
    files = sorted(path for path in places.rglob("*") if path.is_file()) if places.is_dir() else [places]
    documents = [row for path in files for row in _documents(path)]
    queries = list(_topics(_find(folder, TOPICS, split)))
    judgements = list(_judgements(_find(folder, JUDGEMENTS, split)))
    judged = {query for query, _, _ in judgements}
    kept = [(name, text) for name, text in queries if name in judged]
    return Raw(documents, kept, judgements, {"topics_without_judgements": len(queries) - len(kept)})


def _find(folder: Path, names: tuple[str, ...], split: str | None) -> Path:
    found = [path for path in sorted(folder.iterdir()) if path.name.lower().startswith(names)]
    if len(found) > 1 and split is not None:
        found = [path for path in found if split in path.name]
    if len(found) != 1:
        there = ", ".join(path.name for path in found or sorted(folder.iterdir())[:8]) or "nothing"
        wanted = " or ".join(f"{name}*" for name in names)
        told = "; name one by --split, a part of its name" if len(found) > 1 else ""
        raise ExciseError(f"{folder.name}: expected one file {wanted}, found: {there}{told}")
    return found[0]


def _lines(path: Path, text: str) -> Iterator[tuple[str, str]]:
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            name, tab, rest = line.rstrip("\r").partition("\t")
            if not tab or not name.strip():
                raise ExciseError(f"{path.name}: line {number} is neither tagged nor ID<tab>text: {line[:60]!r}")
            yield name.strip(), " ".join(rest.split())


def _clean(text: str) -> str:
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", text)).split())


def _elements(tags: str, text: str) -> list[str]:
    """What elements of a document hold, without the tags in it."""
    return [_clean(held) for _, held in re.findall(rf"(?is)<({tags})\b[^>]*>(.*?)</\1\s*>", text)]


def _fields(tags: str, text: str) -> list[str]:
    """What fields of a topic hold, which need not be closed, without the field's name: ``Number: 301``."""
    return [
        re.sub(r"(?i)^(number|topic|title):\s*", "", _clean(held))
        for held in re.findall(rf"(?i)<(?:{tags})\b[^>]*>([^<]*)", text)
    ]


def _documents(path: Path) -> Iterator[tuple[str, str]]:
    text = read_text(path)
    if not re.search(r"<DOC>", text, re.IGNORECASE):
        yield from _lines(path, text)
        return
    for number, one in enumerate(_records("DOC", path, text), 1):
        names = _elements("DOCNO", one)
        if len(names) != 1 or not names[0]:
            raise ExciseError(f"{path.name}: document {number} has {len(names)} <DOCNO>, not one")
        parts = [*_elements("TITLE|HEADLINE|HL|TI", one), *_elements("TEXT|BODY", one)]
        yield names[0], " ".join(part for part in parts if part)


def _records(tag: str, path: Path, text: str) -> list[str]:
    found = re.findall(rf"<{tag}\b[^>]*>.*?</{tag}\s*>", text, re.DOTALL | re.IGNORECASE)
    begun = len(re.findall(rf"<{tag}\b[^>]*>", text, re.IGNORECASE))
    if begun != len(found):
        raise ExciseError(f"{path.name}: {begun} <{tag}> begin and {len(found)} end; is the file cut off?")
    return found


def _topics(path: Path) -> Iterator[tuple[str, str]]:
    text = read_text(path)
    tag = next((tag for tag in ("top", "topic") if re.search(rf"<{tag}\b", text, re.IGNORECASE)), None)
    if tag is None:
        yield from _lines(path, text)
        return
    for number, one in enumerate(_records(tag, path, text), 1):
        attribute = re.match(r"<topic\b[^>]*\bnumber\s*=\s*[\"']?([^\"'\s>]+)", one, re.IGNORECASE)
        numbers = [attribute[1]] if attribute else _fields("num", one)
        asked = _fields("title|query", one)
        if len(numbers) != 1 or not numbers[0] or len(asked) != 1 or not asked[0]:
            raise ExciseError(f"{path.name}: topic {number} lacks its number, or its title (or query)")
        yield numbers[0], asked[0]


def _judgements(path: Path) -> Iterator[Judgement]:
    for number, line in enumerate(read_text(path).splitlines(), 1):
        columns = line.split()
        if not columns:
            continue
        if len(columns) != 4 or not re.fullmatch(r"-?\d+", columns[3]):
            raise ExciseError(
                f"{path.name}: line {number} is not a judgement (topic, iteration, document, grade): {line[:60]!r}"
            )
        yield columns[0], columns[2], int(columns[3])
