"""Texts: read documents from any source, and write them as rows ``{id, text}``, one a document."""

import csv
import gzip
import hashlib
import io
import re
import sys
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from excise.artefacts import Json, parse_json, read_jsonl
from excise.errors import ExciseError, unknown

READABLE = (".txt", ".utf8", ".jsonl", ".json", ".parquet", ".csv", ".tsv")
"""Endings of the files that are understood, each also with ``.gz``."""

NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?|[Nn]a[Nn]")
"""What a cell of a column of numbers looks like."""

WIKITEXT2_REPOSITORIES = ("Salesforce/wikitext", "wikitext")
WIKITEXT2_TEST = "06f8f4136de90fcf1b32ffda9136ecab621b3e437c370b5cdd27b37e9e9e9efc"
"""SHA-256 of WikiText-2's raw test split with every run of white space replaced by one space. The same for the
original file, for the hub's rows, and for the rows joined by blank lines."""


def read_text(path: Path) -> str:
    """The whole of a text file, line ends as they are.

    Raises:
        ExciseError: it cannot be read, or is not UTF-8.
    """
    try:
        data = path.read_bytes()
        return (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8-sig")
    except gzip.BadGzipFile as error:
        raise ExciseError(f"{path.name}: its gzip data are damaged ({error}); fetch or copy it again") from error
    except OSError as error:
        raise ExciseError(f"{path.name}: cannot be read ({error.strerror or error})") from error
    except (EOFError, zlib.error) as error:
        raise ExciseError(f"{path.name}: its gzip data are damaged ({error}); fetch or copy it again") from error
    except UnicodeDecodeError as error:
        raise ExciseError(f"{path.name}: not UTF-8 text ({error})") from error


def file_kind(path: Path) -> str:
    """The ending that says how a file is read; ``.gz`` is looked through.

    Raises:
        ExciseError: the format is not known.
    """
    suffix = (path.with_suffix("") if path.suffix == ".gz" else path).suffix.lower()
    if suffix not in READABLE:
        raise unknown("file format", suffix or path.name, READABLE, where=path.name)
    return suffix


def records(path: Path) -> Iterator[tuple[str, Json]]:
    """The records of a structured file, each with words for its place in the file.

    JSON is a list of objects, or, as C4 is on the hub, JSON lines; JSONL has one object a line, and a first line
    ``{"meta": ...}`` is passed over; CSV and TSV are quoted as usual, begin with their column names, and may have blank
    lines.

    Raises:
        ExciseError: a record is broken; names its line or place.
    """
    kind = file_kind(path)
    if kind == ".jsonl":
        yield from _json_lines(path)
    elif kind == ".json":
        text = read_text(path)
        if not text.lstrip().startswith("["):
            yield from _json_lines(path)
            return
        for number, value in enumerate(parse_json(text, f"{path.name}:", each_key_once=True), 1):
            yield f"{path.name}: record {number}", value if isinstance(value, dict) else {"text": value}
    elif kind in (".csv", ".tsv"):
        yield from _table(path, kind)
    else:
        yield from _parquet(path)


def _json_lines(path: Path) -> Iterator[tuple[str, Json]]:
    for number, line in enumerate(read_text(path).split("\n"), 1):
        if not line.strip():
            continue
        where = f"{path.name}: line {number}"
        value = parse_json(line, f"{where} is", quote=True, each_key_once=True)
        if not isinstance(value, dict):
            raise ExciseError(f"{where}: expected a JSON object, found {type(value).__name__}")
        if number == 1 and value.keys() == {"meta"}:
            continue
        yield where, value


def _table(path: Path, kind: str) -> Iterator[tuple[str, Json]]:
    lines = io.StringIO(read_text(path), newline="")
    csv.field_size_limit(sys.maxsize)  # documents are longer than its default
    reader = csv.reader(lines, strict=True, delimiter="\t" if kind == ".tsv" else ",")
    try:
        rows = filter(None, reader)  # without blank lines
        columns = next(rows, [])
        if twice := [name for name in columns if columns.count(name) > 1]:
            raise ExciseError(f"{path.name}: line {reader.line_num} names the column {twice[0]!r} twice; rename one")
        for row in rows:
            where = f"{path.name}: line {reader.line_num}"
            if row == columns:
                raise ExciseError(f"{where} repeats the column names; several tables were put together: remove it")
            if len(row) != len(columns):
                raise ExciseError(f"{where} has {len(row)} columns, the first line names {len(columns)}")
            yield where, dict(zip(columns, row, strict=True))
    except csv.Error as error:
        raise ExciseError(f"{path.name}: line {reader.line_num}: {error}") from error


def _parquet(path: Path) -> Iterator[tuple[str, Json]]:
    import pyarrow  # type: ignore[import-untyped]
    from pyarrow import parquet

    try:
        rows = parquet.read_table(path).to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        raise ExciseError(f"{path.name}: not a readable parquet file ({error})") from error
    for number, row in enumerate(rows, 1):
        yield f"{path.name}: row {number}", row


def text_of(value: object) -> object:
    """The text of a field: itself, or the ``text`` inside it, as RealToxicityPrompts nests it."""
    return value.get("text") if isinstance(value, dict) else value


def field_text(where: str, record: Json, field: str) -> str:
    """The text in a record's field.

    Raises:
        ExciseError: the field is missing or is not text.
    """
    if field not in record:
        raise ExciseError(f"{where} has no field {field!r}; it has {', '.join(map(str, record))}")
    value = text_of(record[field])
    if not isinstance(value, str):
        texts = [str(name) for name, other in record.items() if name != field and isinstance(text_of(other), str)]
        instead = f"; text is in {', '.join(texts)}" if texts else f"; it has {', '.join(map(str, record))}"
        raise ExciseError(f"{where}: field {field!r} holds {type(value).__name__}, not text{instead}")
    return value


def check_words(texts: Iterable[str]) -> None:
    """Refuse a column of numbers, which in CSV and TSV are text as well.

    Raises:
        ExciseError: every text that is not blank is a number.
    """
    found = [text for text in texts if text.strip()]
    if found and all(NUMBER.fullmatch(text.strip()) for text in found):
        raise ExciseError(
            f"all {len(found)} texts are numbers ({found[0].strip()!r}, ...); name the column that holds the text: "
            "--field"
        )


def documents(path: Path, *, field: str = "text", lines: bool = False) -> Iterator[str]:
    """The documents of one file.

    A plain text file is one document, kept exactly. With ``lines`` each of its lines is one, its line end included,
    and a blank line is an empty one: so are the rows of WikiText2 on the hub made from the original file.
    """
    if file_kind(path) in (".txt", ".utf8"):
        text = read_text(path)
        if lines:
            yield from (line if line.strip() else "" for line in re.findall(r"[^\n]*\n|[^\n]+$", text))
        else:
            yield text
        return
    if lines:
        raise ExciseError(f"--lines is for plain text files; {path.name} has records already")
    for where, record in records(path):
        yield field_text(where, record, field)


def text_rows(texts: Iterable[str], *, limit: int | None = None) -> list[Json]:
    """Rows ``{id, text}``; the id is the place of the document in its source, from 0.

    Empty documents stay: WikiText2's rows have them, and joining depends on them.

    Raises:
        ExciseError: there is no text at all.
    """
    rows: list[Json] = []
    for number, text in enumerate(texts):
        if limit is not None and number >= limit:
            break
        rows.append({"id": str(number), "text": text})
    if not any(row["text"].strip() for row in rows):
        raise ExciseError(f"the text is empty ({len(rows)} documents); is it the right file, field, subset and split?")
    check_words(row["text"] for row in rows)
    return rows


def text_facts(rows: Sequence[Json]) -> Json:
    """Counts and SHA-256 of the content (documents in order, divided by a NUL)."""
    sha = hashlib.sha256()
    for row in rows:
        sha.update(row["text"].encode() + b"\0")
    return {
        "documents": len(rows),
        "characters": sum(len(row["text"]) for row in rows),
        "sha256": sha.hexdigest(),
    }


def check_label(label: str, rows: Sequence[Json], *, repository: str | None, subset: str | None) -> None:
    """Refuse to call anything WikiText2 that is not WikiText2: its numbers would be compared with published ones.

    Args:
        label: what the text is to be called.
        rows: the documents.
        repository: the hub repository it comes from, if it does.
        subset: the configuration of the data set.

    Raises:
        ExciseError: the label says WikiText2 and the text is something else.
    """
    if not re.search(r"wiki[\s_-]*text[\s_-]*v?2(?!\d)", label, re.IGNORECASE):
        return
    if repository in WIKITEXT2_REPOSITORIES and subset == "wikitext-2-raw-v1":
        return
    words = " ".join(word for row in rows for word in row["text"].split())
    if hashlib.sha256(words.encode()).hexdigest() != WIKITEXT2_TEST:
        raise ExciseError(
            f"--label {label!r}: this text is not the raw test split of WikiText-2. Its perplexity would be compared "
            "with published ones: label it as what it is, or take hub:Salesforce/wikitext, subset wikitext-2-raw-v1."
        )


def joined(rows: Sequence[Json], separator: str = "\n\n") -> str:
    """The one text that a perplexity protocol tokenises.

    Wanda, SparseGPT and SparC3 join the rows of WikiText2 (empty ones too) by two newlines, those of C4 and PTB by a
    space. A corpus of one document is itself, whatever the separator.
    """
    return separator.join(row["text"] for row in rows)


def read_texts(path: str | Path) -> tuple[Json, list[Json]]:
    """Read a text artefact.

    Raises:
        ExciseError: it cannot be read, or holds no text.
    """
    meta, rows = read_jsonl(path, required=("id", "text"))
    if not any(row["text"].strip() for row in rows):
        raise ExciseError(f"{path}: no text in it")
    return meta, rows
