"""Texts: documents as they are, joining, and what may be called WikiText2."""

import gzip
import hashlib
import json

import pytest

from excise.artefacts import read_jsonl
from excise.data import texts
from excise.errors import ExciseError


def test_a_plain_file_is_one_document_kept_exactly(tmp_path, excise):
    text = "  First line \r\n\n\tü — 文\u2028 same line\x0c\n"
    (tmp_path / "it's.utf8").write_bytes(text.encode())
    excise("fetch-text", "--source", tmp_path / "it's.utf8", "--licence", "CC0", "--output", tmp_path / "o.jsonl")
    meta, rows = read_jsonl(tmp_path / "o.jsonl")
    assert rows == [{"id": "0", "text": text}]
    assert meta["label"] == meta["settings"]["source"] == "it's.utf8"
    assert meta["licence"] == "CC0"
    assert meta["settings"]["sha256"] == hashlib.sha256(text.encode()).hexdigest()
    sha256 = hashlib.sha256(text.encode() + b"\0").hexdigest()
    assert meta["content"] == {"documents": 1, "characters": len(text), "sha256": sha256}
    assert texts.joined(rows) == texts.joined(rows, " ") == text


def test_lines_are_the_rows_that_the_hub_has_of_wikitext(tmp_path, excise):
    (tmp_path / "w.txt").write_text(" \n = Title = \n \n A line . \n B\u2028b", encoding="utf-8")
    excise("fetch-text", "--source", tmp_path / "w.txt", "--lines", "--output", tmp_path / "o.jsonl")
    rows = read_jsonl(tmp_path / "o.jsonl")[1]
    assert [row["text"] for row in rows] == ["", " = Title = \n", "", " A line . \n", " B\u2028b"]
    assert texts.joined(rows) == "\n\n = Title = \n\n\n\n\n A line . \n\n\n B\u2028b"


@pytest.mark.parametrize("name", ["t.jsonl", "t.json", "t.json.gz", "t.parquet", "t.csv", "t.tsv"])
def test_records_are_documents_empty_ones_too(tmp_path, excise, name):
    documents = ["first, one", "", "third “one”"]
    path, records = tmp_path / name, [{"n": str(n), "body": text} for n, text in enumerate(documents)]
    if name == "t.parquet":
        import pyarrow
        from pyarrow import parquet

        parquet.write_table(pyarrow.Table.from_pylist(records), path)
    elif name == "t.csv":
        path.write_text("n,body\n" + "".join(f'{r["n"]},"{r["body"]}"\n' for r in records), "utf-8")
    elif name == "t.tsv":
        path.write_text("n\tbody\n" + "".join(f"{r['n']}\t{r['body']}\n" for r in records), "utf-8")
    else:
        lines = json.dumps(records) if name == "t.json" else "\n".join(map(json.dumps, records))
        path.write_bytes(gzip.compress(lines.encode()) if name.endswith(".gz") else lines.encode())
    excise("fetch-text", "--source", path, "--field", "body", "--output", tmp_path / "o.jsonl")
    assert [row["text"] for row in read_jsonl(tmp_path / "o.jsonl")[1]] == documents
    excise("fetch-text", "--source", path, "--field", "body", "--limit", 1, "--output", tmp_path / "o.jsonl")
    assert [row["text"] for row in read_jsonl(tmp_path / "o.jsonl")[1]] == documents[:1]


def test_tables_have_long_fields_and_blank_lines(tmp_path, excise):
    documents = ["a" * 200_000, "b", "😀"]
    (tmp_path / "t.csv").write_text("\nn,text\n\n" + "".join(f"1,{text}\n\n" for text in documents), "utf-8")
    excise("fetch-text", "--source", tmp_path / "t.csv", "--output", tmp_path / "o.jsonl")
    assert [row["text"] for row in read_jsonl(tmp_path / "o.jsonl")[1]] == documents
    (tmp_path / "t.jsonl").write_text(json.dumps({"text": "😀"}))  # as a pair of surrogates
    excise("fetch-text", "--source", tmp_path / "t.jsonl", "--output", tmp_path / "o.jsonl")
    assert read_jsonl(tmp_path / "o.jsonl")[1][0]["text"] == "😀"


@pytest.mark.parametrize("label", ["WikiText2", "wikitext-2 (raw)", "Wiki Text 2", "WIKITEXT_2"])
def test_nothing_else_is_called_wikitext2(tmp_path, excise, label):
    (tmp_path / "w.txt").write_text("Some encyclopedia.")
    command = ("fetch-text", "--source", tmp_path / "w.txt", "--label", label, "--output", tmp_path / "o.jsonl")
    assert "not the raw test split of WikiText-2" in excise(*command, fails=True)
    assert not (tmp_path / "o.jsonl").exists()


def test_wikitext2_is_known_by_its_words_or_its_repository(monkeypatch):
    rows = [{"id": "0", "text": " = A = \n"}, {"id": "1", "text": ""}, {"id": "2", "text": " b  c"}]
    monkeypatch.setattr(texts, "WIKITEXT2_TEST", hashlib.sha256(b"= A = b c").hexdigest())
    texts.check_label("WikiText2", rows, repository=None, subset=None)
    texts.check_label("WikiText2", [{"id": "0", "text": "= A =\nb c"}], repository=None, subset=None)
    texts.check_label("WikiText-103", rows[:1], repository=None, subset=None)
    texts.check_label("WikiText2", rows[:1], repository="Salesforce/wikitext", subset="wikitext-2-raw-v1")
    for repository, subset in (
        (None, None),
        ("Salesforce/wikitext", "wikitext-103-raw-v1"),
        ("me/wikitext", "wikitext-2-raw-v1"),
    ):
        with pytest.raises(ExciseError, match="label it as what it is"):
            texts.check_label("WikiText2", rows[:1], repository=repository, subset=subset)


@pytest.mark.parametrize(
    ("name", "content", "options", "message"),
    [
        ("t.txt", " \n\n", [], "the text is empty (1 documents)"),
        ("t.jsonl", '{"text": "a"}\n{"text": \n', [], "t.jsonl: line 2 is not valid JSON"),
        ("t.jsonl", '{"body": "a"}\n', [], "t.jsonl: line 1 has no field 'text'; it has body"),
        ("t.jsonl", '{"text": "a"}\n', ["--lines"], "--lines is for plain text files"),
        ("t.txt", "a", ["--limit", "0"], "argument --limit: '0' is less than the minimum of 1"),
        ("t.txt", "a", ["--sha256", "0" * 64], "wrong checksum"),
        ("t.docx", "a", [], "unknown file format '.docx'"),
        (
            "t.jsonl",
            '{"text": "a"}\n{"text": "b\\ud800"}\n',
            [],
            "t.jsonl: line 2 is not valid JSON (half a character: ",
        ),
        ("t.json", '["a \\uDC00"]', [], "t.json: not valid JSON (half a character: "),
        ("t.json", "[" * 100_000, [], "t.json: not valid JSON (nested too deeply)"),
        ("t.jsonl", '{"text": "a"}\n' + '{"a": ' * 100_000, [], "line 2 is not valid JSON (nested too deeply): "),
    ],
)
def test_bad_input_is_named(tmp_path, excise, name, content, options, message):
    (tmp_path / name).write_text(content)
    said = excise("fetch-text", "--source", tmp_path / name, *options, "--output", tmp_path / "o.jsonl", fails=True)
    assert message in said
    assert not (tmp_path / "o.jsonl").exists()


@pytest.mark.parametrize("place", [4, -6, -2], ids=["in the middle", "checksum", "length"])
@pytest.mark.parametrize("name", ["t.txt.gz", "t.jsonl.gz", "t.csv.gz"])
def test_a_damaged_gzip_is_named(tmp_path, excise, name, place):
    data = bytearray(gzip.compress(b"text\n" + b"some words and more of them\n" * 50, mtime=0))
    middle = len(data) // 2 if place == 4 else place
    data[middle] ^= 0xFF
    (tmp_path / name).write_bytes(bytes(data))
    said = excise("fetch-text", "--source", tmp_path / name, "--output", tmp_path / "o.jsonl", fails=True)
    assert f"{name}: its gzip data are damaged" in said
    (tmp_path / name).write_bytes(bytes(data[:-20]))
    said = excise("fetch-text", "--source", tmp_path / name, "--output", tmp_path / "o.jsonl", fails=True)
    assert f"{name}: its gzip data are damaged" in said


def test_a_column_of_numbers_is_no_text(tmp_path, excise):
    (tmp_path / "t.csv").write_text("id,text,n\n1,words,-1.5e3\n2,more,.5\n")
    for field in ("id", "n"):
        said = excise(
            "fetch-text", "--source", tmp_path / "t.csv", "--field", field, "--output", tmp_path / "o.jsonl", fails=True
        )
        assert "all 2 texts are numbers" in said
    excise("fetch-text", "--source", tmp_path / "t.csv", "--output", tmp_path / "o.jsonl")
    texts.check_words(["1", "two"])
    texts.check_words(["", " "])
