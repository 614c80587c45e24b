"""Collections in the files of TREC and of MS MARCO."""

import gzip

import pytest

from excise.data.collections import checked
from excise.data.trec import trec
from excise.errors import ExciseError

NEWS = """<DOC>
<DOCNO> FT911-1 </DOCNO>
<HEADLINE>FT 14 MAY 91 / Cats &amp; dogs</HEADLINE>
<TEXT>
<P>Cats sleep
all day.</P> <P>Dogs bark.</P>
</TEXT>
</DOC>
<DOC><DOCNO>FT911-2</DOCNO><TITLE>Rain</TITLE><TEXT>falls</TEXT><TEXT>at night</TEXT></DOC>
"""
TOPICS = """
<top>
<num> Number: 301
<title> Sleep of cats

<desc> Description:
When do they?
<narr> Narrative: any.
</top>
<top><num> Number: 302 <title> Topic: rain </top>
<top>
<num> Number: 303
<title> unjudged
</top>
"""
XML = """<topics task="adhoc">
<topic number="301"><query>sleep of cats</query><question>when?</question></topic>
<topic number='302'><query>rain</query></topic>
</topics>
"""
QRELS = "301 0 FT911-1 2\n301 0 FT911-2 0\n\n302 Q0 FT911-2 1\n302 0 FT911-1 -2\n"


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "documents.trec").write_text(NEWS)
    (tmp_path / "topics.301-303.txt").write_text(TOPICS)
    (tmp_path / "qrels.txt").write_text(QRELS)
    return tmp_path


def test_tagged_documents_topics_and_qrels_are_read(folder):
    found = checked(trec(folder, split=None))
    assert [(row["id"], row["text"]) for row in found.documents] == [
        ("FT911-1", "FT 14 MAY 91 / Cats & dogs Cats sleep all day. Dogs bark."),
        ("FT911-2", "Rain falls at night"),
    ]
    assert found.queries == [
        {"id": "301", "text": "Sleep of cats", "relevant": {"FT911-1": 2}},
        {"id": "302", "text": "rain", "relevant": {"FT911-2": 1}},
    ]
    assert found.counts["dropped"] == {"topics_without_judgements": 1}
    (folder / "topics.301-303.txt").write_text(XML)
    assert [row["text"] for row in checked(trec(folder, split=None)).queries] == ["sleep of cats", "rain"]


def test_documents_may_be_a_folder_of_files_some_of_them_compressed(folder):
    first, second = NEWS.split("<DOC><DOCNO>")
    (folder / "documents.trec").unlink()
    (folder / "documents" / "fr").mkdir(parents=True)
    (folder / "documents" / "fr" / "a.gz").write_bytes(gzip.compress(first.encode()))
    (folder / "documents" / "b").write_text(f"<DOC><DOCNO>{second}")
    assert sorted(row["id"] for row in checked(trec(folder, split=None)).documents) == ["FT911-1", "FT911-2"]


def test_the_files_of_ms_marco_are_lines_and_the_split_chooses_among_them(tmp_path):
    (tmp_path / "collection.tsv").write_text("0\tcats sleep\r\n1\tdogs <b>bark\n")
    for split, text in (("dev.small", "cats"), ("train", "dogs")):
        (tmp_path / f"queries.{split}.tsv").write_text(f"7\twhat of {text}\n")
        (tmp_path / f"qrels.{split}.tsv").write_text(f"7\t0\t{split == 'train':d}\t1\n")
    found = checked(trec(tmp_path, split="dev"))
    assert [row["text"] for row in found.documents] == ["cats sleep", "dogs <b>bark"]
    assert found.queries == [{"id": "7", "text": "what of cats", "relevant": {"0": 1}}]
    with pytest.raises(ExciseError, match=r"expected one file topics\* or queries\*, found: queries.dev.*--split"):
        trec(tmp_path, split=None)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("documents.trec", NEWS[:-8], "2 <DOC> begin and 1 end; is the file cut off"),
        ("documents.trec", "<DOC><TEXT>a</TEXT></DOC>", "document 1 has 0 <DOCNO>"),
        ("documents.trec", "no tab here\n", "line 1 is neither tagged nor ID<tab>text"),
        ("topics.301-303.txt", "<top><num> Number: 1 <desc> what? </top>", "topic 1 lacks its number, or its title"),
        ("qrels.txt", "301 0 FT911-1\n", "line 1 is not a judgement"),
        ("qrels.txt", "301 0 FT911-1 0.5\n", "line 1 is not a judgement"),
    ],
)
def test_what_is_broken_is_named(folder, name, text, message):
    (folder / name).write_text(text)
    with pytest.raises(ExciseError, match=message):
        trec(folder, split=None)


def test_the_stage_reads_it_and_a_document_that_is_missing_is_refused(folder, tmp_path, excise):
    options = (
        "--format",
        "trec",
        "--documents",
        tmp_path / "out" / "d.jsonl",
        "--queries",
        tmp_path / "out" / "q.jsonl",
    )
    excise("fetch-collection", "--source", folder, *options)
    assert (tmp_path / "out" / "d.jsonl").read_text().count('"id"') == 2
    (folder / "qrels.txt").write_text(QRELS + "301 0 FT999-9 1\n")
    assert "'FT999-9'" in excise("fetch-collection", "--source", folder, *options, fails=True)
