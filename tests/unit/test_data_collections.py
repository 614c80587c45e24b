"""Test collections: formats, checks, and parts that share nothing."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from excise.artefacts import read_distinct
from excise.data.collection_formats import beir, documents, plain, semanlink, smart
from excise.data.collections import Raw, checked, read_queries
from excise.data.parts import apart, divide
from excise.errors import ExciseError


def jsonl(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")


@pytest.fixture
def folder(tmp_path):
    """A small folder as BEIR has it."""
    (tmp_path / "qrels").mkdir()
    documents = [("d1", "Cats", "sleep all day"), ("d2", "", "dogs bark"), ("d3", "Empty", "")]
    jsonl(tmp_path / "corpus.jsonl", [{"_id": i, "title": t, "text": x} for i, t, x in documents])
    jsonl(tmp_path / "queries.jsonl", [{"_id": q, "text": f"query {q}"} for q in ("q1", "q2", "train")])
    lines = ["query-id\tcorpus-id\tscore", "q1\td1\t2", "q1\td2\t0", "q2\td3\t1"]
    (tmp_path / "qrels" / "test.tsv").write_text("\n".join(lines) + "\n")
    return tmp_path


def test_a_beir_folder_is_read_and_checked(folder):
    found = checked(beir(folder, split="test"))
    assert [row["text"] for row in found.documents] == ["Cats sleep all day", "dogs bark", "Empty"]
    assert found.queries == [
        {"id": "q1", "text": "query q1", "relevant": {"d1": 2}},  # grade 0 is as good as no judgement
        {"id": "q2", "text": "query q2", "relevant": {"d3": 1}},
    ]
    assert found.counts["dropped"] == {"queries_of_other_splits": 1}
    assert found.counts["relevant"] == 2


def test_compressed_files_are_read_too(folder):
    (folder / "corpus.jsonl.gz").write_bytes(gzip.compress((folder / "corpus.jsonl").read_bytes()))
    (folder / "corpus.jsonl").unlink()
    assert len(beir(folder, split="test").documents) == 3


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: (f / "qrels" / "test.tsv").unlink(), r"no qrels/test.tsv in it"),
        (lambda f: jsonl(f / "corpus.jsonl", [{"id": "d1", "text": "x"}]), r"line 1: no field '_id'; it has id, text"),
        (lambda f: jsonl(f / "corpus.jsonl", [{"_id": "d1", "text": "x"}]), r"2 document ids.*'d2', 'd3'"),
        (lambda f: jsonl(f / "queries.jsonl", [{"_id": "q1", "text": "x"}]), r"1 query ids.*'q2'"),
        (lambda f: jsonl(f / "corpus.jsonl", [{"_id": "d1", "text": "x"}] * 2), r"document ids occur more than once"),
        (lambda f: jsonl(f / "queries.jsonl", [{"_id": "q1", "text": " "}, {"_id": "q2", "text": "x"}]), r"'q1'.*empty"),
        (lambda f: (f / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td1\tgood\n"), r"'good'.*whole"),
        (lambda f: (f / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td1\t0\n"), r"none has a relevant"),
    ],
)  # fmt: skip
def test_a_collection_that_makes_no_sense_is_refused(folder, spoil, message):
    spoil(folder)
    with pytest.raises(ExciseError, match=f"(?s){message}"):
        checked(beir(folder, split="test"))


def test_two_grades_for_one_document_are_refused():
    raw = Raw([("d", "x")], [("q", "y")], [("q", "d", 1), ("q", "d", 2)])
    with pytest.raises(ExciseError, match="judged twice, with different grades"):
        checked(raw)


def test_the_target_of_a_link_names_the_tag_and_is_dropped():
    assert plain("see [NER](tag:named_entity) and\n[x](doc:1) [y]") == "see NER and x [y]"


def test_semanlink_queries_are_the_labels_of_tags(tmp_path):
    document = {"comment": "[NER](tag:ner) rules", "arxiv_summary": ""}
    rows = [
        {"document": "u1", "title": "One", "tag": ["t/ner", "t/none"], **document},
        {"document": "u1", "title": "Again", "tag": ["t/ner"], **document},
        {"document": "u2", "title": " ", "tag": ["t/ner"], **document},
        {"document": "u3", "title": "Three", "tag": ["t/ner"], **document, "arxiv_summary": "An abstract."},
    ]
    (tmp_path / "docs.json").write_text(json.dumps(rows))
    (tmp_path / "tags.json").write_text(json.dumps({"t/ner": {"prefLabel": ["Named entities"]}, "t/none": {}}))
    titles, full = (checked(semanlink(tmp_path, split=split)) for split in ("titles", "full"))
    assert [row["text"] for row in titles.documents] == ["One", "Three"]
    assert [row["text"] for row in full.documents] == ["One NER rules", "Three NER rules An abstract."]
    assert titles.queries == [{"id": "t/ner", "text": "Named entities", "relevant": {"u1": 1, "u3": 1}}]
    assert titles.counts["dropped"] == {"documents": 2, "unlabelled_tags": 1}


def make(count: int = 60) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Documents of distinct words, one of them twice, and a query for every second document."""
    documents = [{"id": f"d{n}", "text": f"alpha{n} beta{n} gamma{n}"} for n in range(count)]
    documents += [{"id": "again", "text": "Alpha0, beta0; gamma0!"}]
    queries = [{"id": f"q{n}", "text": f"find{n} it{n}", "relevant": {f"d{n}": 1}} for n in range(0, count, 2)]
    return documents, queries


def test_parts_share_nothing_and_judgements_follow_the_searched_documents():
    documents, queries = make()
    parts = divide(documents, queries, calibration=20, searched=30, tuning_fraction=0.4, seed=3)
    calibration, searched = ({row["id"] for row in rows} for rows in (parts.calibration, parts.documents))
    assert len(searched) == 30
    assert len(calibration) in (19, 20)
    assert not calibration & searched
    for part in (calibration, searched):
        assert len(part & {"d0", "again"}) in (0, 2)  # the near-duplicates stay together
    tuning, test = ({row["id"] for row in rows} for rows in (parts.tuning, parts.test))
    assert tuning
    assert test
    assert not tuning & test
    assert all(set(row["relevant"]) <= searched for row in (*parts.tuning, *parts.test))
    assert tuning | test == {row["id"] for row in queries if set(row["relevant"]) & searched}
    assert parts == divide(documents, queries, calibration=20, searched=30, tuning_fraction=0.4, seed=3)


def test_a_calibration_document_that_nearly_is_a_test_query_is_left_out():
    documents, queries = make()
    queries[0]["text"] = "ALPHA7 beta7 gamma7"
    left_out = 0
    for seed in range(8):
        parts = divide(documents, queries, calibration=30, seed=seed)
        if "q0" in {row["id"] for row in parts.test}:
            assert "d7" not in {row["id"] for row in parts.calibration}
        left_out += parts.counts["calibration_like_a_test_query"]
    assert 0 < left_out < 8


def test_documents_alone_are_divided_too():
    parts = divide(make()[0], [], calibration=20)
    assert (len(parts.calibration) + len(parts.documents), parts.test) == (61, [])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"calibration": 61}, "too few"),
        ({"calibration": 10, "searched": 61}, "too few"),
        ({"calibration": 10, "relevant": (2, 50)}, "none has 2 to 50 relevant"),
        ({"calibration": -1}, "numbers of documents"),
    ],
)
def test_parts_that_cannot_be_made_are_refused(options, message):
    with pytest.raises(ExciseError, match=message):
        divide(*make(), **options)


def test_the_stages_write_what_the_functions_say(folder, tmp_path, excise):
    out = tmp_path / "out"
    message = excise(
        *("fetch-collection", "--source", folder, "--documents", out / "d.jsonl", "--queries", out / "q.jsonl")
    )
    assert "'queries': 2" in message
    meta, rows = read_queries(out / "q.jsonl")
    assert [row["id"] for row in rows] == ["q1", "q2"]
    assert meta["settings"]["format"] == "beir"
    excise("split-collection", "--documents", out / "d.jsonl", "--queries", out / "q.jsonl", "--output", out / "parts")
    assert sorted(path.name for path in (out / "parts").iterdir()) == ["documents.jsonl", "test-queries.jsonl"]
    assert "such a collection has queries" in excise(
        *("fetch-collection", "--source", folder, "--documents", out / "d.jsonl"), fails=True
    )


def test_short_documents_take_no_part_if_asked(tmp_path, excise):
    texts = [f"{' '.join(f'w{n}x{place}' for place in range(1 + n % 4))}" for n in range(40)]
    jsonl(tmp_path / "d.jsonl", [{"id": str(n), "text": text} for n, text in enumerate(texts)])
    queries = [{"id": f"q{n}", "text": f"query {n}", "relevant": {str(n): 1}} for n in range(40)]
    jsonl(tmp_path / "q.jsonl", queries)
    call = ("split-collection", "--documents", tmp_path / "d.jsonl", "--queries", tmp_path / "q.jsonl")
    excise(*call, "--min-words", 3, "--calibration-documents", 5, "--output", tmp_path / "parts")
    rows = {
        name: read_distinct(tmp_path / "parts" / f"{name}.jsonl", ("id", "text"), name)[1]
        for name in ("documents", "calibration", "test-queries")
    }
    assert [len(found) for found in rows.values()] == [15, 5, 15]  # half of 40 have 3 or 4 words
    assert all(len(row["text"].split()) >= 3 for name in ("documents", "calibration") for row in rows[name])
    message = excise(*call, "--min-words", 5, "--output", tmp_path / "none", fails=True)
    assert "the longest of 40 documents has 4 words" in message


CRANFIELD = {
    "cran.all.1400": ".I 1\n.T\nwings in a\nslipstream .\n.A\nbrenckman,m.\n.W\nwings in a\nslipstream .\n an experiment\n"
    ".I 2\n.T\nshear flow\n.W\npast a plate\n",
    "cran.qry": ".I 001\n.W\nhow do wings\nbehave\n.I 004\n.W\nwhat of shear\n",
    "cranqrel": "1 2 3 \n1 1 -1\n2 1 1\n",
}


def test_smart_files_are_read_and_queries_numbered_by_their_place(tmp_path):
    for name, text in CRANFIELD.items():
        (tmp_path / name).write_text(text)
    found = checked(smart(tmp_path, split=None))
    assert [row["text"] for row in found.documents] == [
        "wings in a slipstream . an experiment",
        "shear flow past a plate",
    ]
    assert found.queries == [
        {"id": "1", "text": "how do wings behave", "relevant": {"2": 1}},
        {"id": "2", "text": "what of shear", "relevant": {"1": 1}},  # the query whose own number is 004
    ]
    assert found.counts["dropped"] == {"judgements_of_code_-1": 1}
    (tmp_path / "cranqrel").write_text("1 0 1 1\n2 0 2 1\n")  # trec_eval's columns
    assert [row["relevant"] for row in checked(smart(tmp_path, split=None)).queries] == [{"1": 1}, {"2": 1}]
    for name, text, message in [
        ("cranqrel", "1 two\n", "'1 two' is not a judgement"),
        ("cran.qry", "what\n", "'what' belongs to no record"),
        ("cran.qry", ".I\n", "begins with .I and its number"),
    ]:
        (tmp_path / name).write_text(text)
        with pytest.raises(ExciseError, match=message):
            smart(tmp_path, split=None)
        (tmp_path / name).write_text(CRANFIELD[name])
    (tmp_path / "med.qry").write_text("")
    with pytest.raises(ExciseError, match=r"one file \*.qry\*, found: cran.qry, med.qry"):
        smart(tmp_path, split=None)


def test_documents_alone_are_files_or_records(tmp_path, excise):
    own = tmp_path / "own"
    (own / "sub").mkdir(parents=True)
    (own / "sub" / "a.md").write_text("Cats\nsleep.")
    jsonl(own / "b.jsonl", [{"title": "Dogs", "text": "bark"}, {"_id": "x", "text": "rain"}])
    (own / "picture.png").write_bytes(b"\x89PNG")
    found = documents(own, split=None)
    assert found.documents == [("b.jsonl:1", "Dogs bark"), ("x", "rain"), ("sub/a.md", "Cats sleep.")]
    assert found.dropped == {"files_that_are_no_text": 1}
    source = ("fetch-collection", "--source", own, "--format", "documents", "--documents", tmp_path / "d.jsonl")
    excise(*source)
    assert "no queries; leave --queries out" in excise(*source, "--queries", tmp_path / "q.jsonl", fails=True)
    (own / "b.jsonl").unlink()
    (own / "sub" / "a.md").unlink()
    with pytest.raises(ExciseError, match="no documents; expected files that end with"):
        documents(own, split=None)


def test_what_other_collections_judge_is_not_calibrated_on():
    texts = ["A title of five words", "Something else", "Cats, sleep: all day and night long", "dogs bark"]
    rows = [{"id": str(n), "text": text} for n, text in enumerate(texts)]
    judged = ["a title of five words, and then its abstract", "cats sleep all day and night, long!", "the dogs bark"]
    assert [row["id"] for row in apart(rows, judged)] == ["1", "3"]
