"""Reference sets: the model's own answers, windows of a text, ready-made files."""

import itertools
import json
import random

import pytest

from excise.artefacts import read_jsonl, sha256_file, write_jsonl
from excise.data import references
from excise.errors import ExciseError


def letters(text):
    return [ord(letter) for letter in text]


def make_generations(count=40, draws=2):
    generator = random.Random(0)
    pairs = list(itertools.product((f"p{n:02}" for n in range(count)), range(draws)))
    generations = [
        {"id": name, "draw": draw, "prompt_ids": letters(name), "completion": f" {draw}", "completion_ids": [5, draw]}
        for name, draw in pairs
    ]
    scores = [{"id": name, "draw": draw, "score": round(generator.random(), 3)} for name, draw in pairs]
    return generations, scores


def choose(generations, scores, **options):
    settings = {"at_least": None, "below": None, "count": 10, "minimum": None, "seed": 0}
    return references.generation_rows(generations, scores, **(settings | options))


def test_responses_are_those_beyond_the_threshold():
    generations, scores = make_generations()
    generator = random.Random(2)
    for options, passes in (({"at_least": 0.5}, lambda s: s >= 0.5), ({"below": 0.2}, lambda s: s < 0.2)):
        rows, facts = choose(generations, generator.sample(scores, len(scores)), count=80, minimum=1, **options)
        expected = {
            f"{row['id']}:{row['draw']}": (row["prompt_ids"] + row["completion_ids"], 3, score["score"])
            for row, score in zip(generations, scores, strict=True)
            if passes(score["score"])
        }
        assert {row["id"]: (row["input_ids"], row["target_start"], row["score"]) for row in rows} == expected
        assert [row["id"] for row in rows] == sorted(expected)
        assert facts == {"generations": 80, "empty": 0, "found": len(expected), "used": len(expected)}


def test_a_score_at_the_threshold_is_at_least_and_not_below():
    generations, scores = make_generations(1, 1)
    scores[0]["score"] = 0.9
    assert len(choose(generations, scores, at_least=0.9, count=1)[0]) == 1
    with pytest.raises(ExciseError, match=r"0 of 1 generations score below 0\.9"):
        choose(generations, scores, below=0.9, count=1)


def test_the_seed_draws_where_more_are_found():
    generations, scores = make_generations()
    drawn = [[row["id"] for row in choose(generations, scores, at_least=0.3, seed=seed)[0]] for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert all(len(set(ids)) == 10 and ids == sorted(ids) for ids in drawn)
    assert [row["id"] for row in choose(generations[::-1], scores, at_least=0.3)[0]] == drawn[0]
    often = [
        name
        for seed in range(200)
        for name in (r["id"] for r in choose(generations, scores, at_least=0.3, seed=seed)[0])
    ]
    found = choose(generations, scores, at_least=0.3)[1]["found"]
    assert len(set(often)) == found  # every answer is drawn now and then


def test_empty_completions_are_dropped_and_counted():
    generations, scores = make_generations()
    generations[0]["completion_ids"] = []
    generations[1]["completion"] = " \n"
    rows, facts = choose(generations, scores, at_least=0.0, count=80, minimum=1)
    assert facts == {"generations": 80, "empty": 2, "found": 78, "used": 78}
    assert not {"p00:0", "p00:1"} & {row["id"] for row in rows}


def test_too_few_responses_name_number_threshold_and_cure():
    generations, scores = make_generations()
    for row in scores:
        row["score"] *= 0.5
    high = max(row["score"] for row in scores)
    with pytest.raises(
        ExciseError,
        match=rf"0 of 80 generations score at or above 0.9.* at least 10 .* highest score is {high:.4g}.*lower --at-least",
    ):
        choose(generations, scores, at_least=0.9)
    with pytest.raises(ExciseError, match="at least 7 are needed"):
        choose(generations, scores, at_least=0.9, minimum=7)
    with pytest.raises(ExciseError, match="raise --below"):
        choose(generations, scores, below=-1.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "--at-least or --below"),
        ({"at_least": 0.5, "below": 0.5}, "--at-least or --below"),
        ({"at_least": 0.5, "count": 0}, "--count 0"),
        ({"at_least": 0.5, "minimum": 11}, "--minimum 11: must be at least 1 and at most --count 10"),
    ],
)
def test_bad_choices_are_refused(options, message):
    with pytest.raises(ExciseError, match=message):
        choose(*make_generations(), **options)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda g, s: s.pop(3), "prompt p01, draw 1 has no score"),
        (lambda g, s: g.pop(3), r"1 scores belong to no generation \(first: prompt p01, draw 1"),
        (lambda g, s: s.append(dict(s[3])), "prompt p01, draw 1 is scored twice"),
        (lambda g, s: g.append(dict(g[3])), "prompt p01, draw 1 has no score, or its generation occurs twice"),
        (lambda g, s: s[3].update(score=float("nan")), "prompt p01, draw 1: nan is not a finite number"),
        (lambda g, s: s[3].update(score=None), "prompt p01, draw 1: None is not a finite number"),
    ],
)
def test_scores_and_generations_must_belong_together(change, message):
    generations, scores = make_generations()
    change(generations, scores)
    with pytest.raises(ExciseError, match=message):
        choose(generations, scores, at_least=0.5)


def test_windows_of_many_documents():
    generator = random.Random(1)
    documents = [
        {"id": f"d{n}", "text": "".join(generator.choices("abcdef", k=generator.randrange(60)))} for n in range(30)
    ]
    rows, facts = references.window_rows(documents, letters, windows=100, seqlen=20, seed=3)
    by_id = {document["id"]: letters(document["text"]) for document in documents}
    for row in rows:
        name, offset = row["id"].split(":")
        ids = by_id[name]
        assert row["input_ids"] == ids[int(offset) : int(offset) + 20]
        assert len(ids) > 20
        assert (
            0 <= int(offset) <= len(ids) - 20 - 1
        )  # Wanda: random.randint(0, length - seqlen - 1), both ends included
        assert row["target_start"] == 1
    assert len({tuple(row["input_ids"]) for row in rows}) == 100
    assert facts == {"documents": len({row["id"].split(":")[0] for row in rows})}
    assert rows == references.window_rows(documents, letters, windows=100, seqlen=20, seed=3)[0]
    assert rows != references.window_rows(documents, letters, windows=100, seqlen=20, seed=4)[0]


def test_all_windows_that_there_are_can_be_drawn_and_not_one_more():
    documents = [{"id": "a", "text": "abcdefgh"}, {"id": "b", "text": "xyz"}, {"id": "c", "text": "abcdefij"}]
    # Of 5 letters: abcde, bcdef, cdefg and, from the other, cdefi; abcde and bcdef are the same in both.
    rows, _ = references.window_rows(documents, letters, windows=4, seqlen=5, seed=0)
    assert {bytes(row["input_ids"]) for row in rows} == {b"abcde", b"bcdef", b"cdefg", b"cdefi"}
    with pytest.raises(
        ExciseError,
        match="3 documents, of which 2 have more than 5 tokens; they give 4 different windows, 5 are needed",
    ):
        references.window_rows(documents, letters, windows=5, seqlen=5, seed=0)
    with pytest.raises(ExciseError, match=r"of which 0 have more than 9 tokens.*The longest has 8 tokens"):
        references.window_rows(documents, letters, windows=1, seqlen=9, seed=0)


def test_documents_are_tokenised_only_when_drawn():
    documents = [{"id": str(n), "text": "abcdefghij" * 5} for n in range(1000)]
    documents[0]["text"] = "other one " * 5
    seen = []

    def tokenise(text):
        seen.append(text)
        return letters(text)

    references.window_rows(documents, tokenise, windows=5, seqlen=4, seed=0)
    assert len(seen) < 20


def test_windows_of_one_document_never_overlap():
    document = {"id": "0", "text": "".join(map(chr, range(1, 1001)))}
    for seed, windows in itertools.product(range(5), (1, 7, 99, 100)):
        rows, _ = references.window_rows([document], letters, windows=windows, seqlen=10, seed=seed)
        offsets = sorted(int(row["id"].split(":")[1]) for row in rows)
        assert len(offsets) == windows
        assert len({offset % 10 for offset in offsets}) == 1
        assert all(later - earlier >= 10 for earlier, later in itertools.pairwise(offsets))
        assert all(
            row["input_ids"] == [o + 1 for o in range(int(row["id"][2:]), int(row["id"][2:]) + 10)] for row in rows
        )
    phases = {
        int(references.window_rows([document], letters, windows=1, seqlen=10, seed=seed)[0][0]["id"][2:]) % 10
        for seed in range(60)
    }
    assert phases == set(range(10))
    with pytest.raises(ExciseError, match="the text has 1000 tokens; 101 windows of 10 need 1010"):
        references.window_rows([document], letters, windows=101, seqlen=10, seed=0)
    with pytest.raises(ExciseError, match="repeats itself: it has 1 different windows"):
        references.window_rows([{"id": "0", "text": "ab" * 50}], letters, windows=5, seqlen=10, seed=0)


@pytest.mark.parametrize("options", [{"windows": 0, "seqlen": 5}, {"windows": 1, "seqlen": 1}])
def test_bad_window_numbers_are_refused(options):
    with pytest.raises(ExciseError, match=r"must be at least"):
        references.window_rows([{"id": "0", "text": "abc"}], letters, seed=0, **options)


def test_stage_responses(tmp_path, excise):
    generations, scores = make_generations()
    write_jsonl(tmp_path / "g.jsonl", {"model": {"id": "m", "fingerprint": "f"}}, generations)
    made_for = {"settings": {"generations": sha256_file(tmp_path / "g.jsonl")}, "scorer": {"name": "s"}}
    write_jsonl(tmp_path / "s.jsonl", made_for, scores)
    command = [
        "reference",
        "--kind",
        "generations",
        "--generations",
        tmp_path / "g.jsonl",
        "--scores",
        tmp_path / "s.jsonl",
    ]
    for name in ("one", "two"):
        excise(*command, "--at-least", 0.5, "--count", 5, "--seed", 2, "--output", tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    meta, rows = read_jsonl(tmp_path / "one")
    assert len(rows) == meta["reference"]["samples"] == 5
    assert meta["reference"]["tokens"] == 25
    assert meta["reference"]["scorer"] == {"name": "s"}
    assert meta["settings"]["at_least"] == 0.5
    assert meta["settings"]["generations"] == sha256_file(tmp_path / "g.jsonl")
    assert meta["model"] == {"id": "m", "fingerprint": "f"}

    write_jsonl(tmp_path / "g.jsonl", {}, generations[::-1])
    assert "made for another generation file" in excise(
        *command, "--at-least", 0.5, "--output", tmp_path / "x", fails=True
    )
    assert "needs --scores" in excise(*command[:5], "--output", tmp_path / "x", fails=True)
    command[6] = tmp_path / "none.jsonl"
    assert "none.jsonl: no such file" in excise(*command, "--below", 1, "--output", tmp_path / "x", fails=True)
    assert not (tmp_path / "x").exists()


def test_stage_windows(tmp_path, tiny_model, words, excise):
    from transformers import AutoTokenizer

    text = " ".join(words * 20)
    write_jsonl(tmp_path / "t.jsonl", {"label": "made up"}, [{"id": "0", "text": text}])
    command = ["reference", "--kind", "windows", "--text", tmp_path / "t.jsonl", "--model", tiny_model, "--windows", 6]
    excise(*command, "--seqlen", 40, "--seed", 1, "--output", tmp_path / "o.jsonl")
    meta, rows = read_jsonl(tmp_path / "o.jsonl")
    ids = AutoTokenizer.from_pretrained(tiny_model)(text)["input_ids"]
    for row in rows:
        offset = int(row["id"][2:])
        assert row["input_ids"] == ids[offset : offset + 40]
    assert len(rows) == 6
    assert meta["reference"] == {"documents": 1, "text": "made up", "samples": 6, "tokens": 240}
    assert meta["settings"] == {
        "kind": "windows", "seed": 1, "text": sha256_file(tmp_path / "t.jsonl"), "windows": 6, "seqlen": 40,
    }  # fmt: skip
    assert "positions for 256 tokens" in excise(*command, "--seqlen", 257, "--output", tmp_path / "x", fails=True)
    said = excise(*command[:-1], 1000, "--seqlen", 40, "--output", tmp_path / "x", fails=True)
    assert f"the text has {len(ids)} tokens; 1000 windows of 40 need 40000" in said


def test_stage_file(tmp_path, tiny_model, excise):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    records = [{"prompt": f"the cat {n}", "continuation": f" sat on {n}"} for n in range(8)]
    records[0] = {key: {"text": text, "toxicity": 0.1} for key, text in records[0].items()}
    path = tmp_path / "ready made.jsonl"
    path.write_text("\n".join(map(json.dumps, records)))
    command = ["reference", "--kind", "file", "--source", path, "--model", tiny_model, "--output", tmp_path / "o.jsonl"]
    excise(*command, "--count", 8)
    rows = read_jsonl(tmp_path / "o.jsonl")[1]
    expected = [
        (tokenizer.encode(f"the cat {n}") + tokenizer.encode(f" sat on {n}"), len(tokenizer.encode(f"the cat {n}")))
        for n in range(8)
    ]
    assert sorted((row["input_ids"], row["target_start"]) for row in rows) == sorted(expected)
    excise(*command, "--count", 3, "--seed", 1)
    assert len(read_jsonl(tmp_path / "o.jsonl")[1]) == 3
    assert "8 samples in the file, at least 9 are needed" in excise(*command, "--count", 9, fails=True)
    for line, message in (
        ('{"prompt": "a"}', "line 9 has no field 'continuation'"),
        ('{"prompt": "", "continuation": "b"}', "line 9: the prompt is empty"),
        ('{"prompt": "a", "continuation": ""}', "line 9: the continuation is empty"),
        ('{"prompt": "the cat 3", "continuation": " sat on 3"}', "line 9: the same prompt and continuation as"),
        ('{"prompt": ', "line 9 is not valid JSON"),
    ):
        path.write_text("\n".join([*map(json.dumps, records), line]))
        assert message in excise(*command, "--count", 8, fails=True)


def test_all_takes_every_one_that_passes():
    generations, scores = make_generations()
    rows, facts = choose(generations, scores, at_least=0.1, count=None)
    assert len(rows) == facts["used"] == facts["found"] == sum(row["score"] >= 0.1 for row in scores)
    with pytest.raises(ExciseError, match="at least 1 are needed"):
        choose(generations, scores, at_least=1.1, count=None)


def test_permuted_scores_pick_as_many_generations_that_show_nothing():
    generations, scores = make_generations()
    for row in scores:
        row["onset"] = 1
    generations[3]["completion_ids"] = [5]  # shorter than the onset that it may be dealt
    picked = {"at_least": 0.5, "span": "onset", "count": None}
    rows, _ = choose(generations, scores, **picked)
    dealt = [choose(generations, scores, permuted=True, seed=seed, **picked)[0] for seed in (0, 0, 1)]
    assert dealt[0] == dealt[1] != dealt[2]
    assert [sorted(row["score"] for row in one) for one in dealt] == [sorted(row["score"] for row in rows)] * 3
    before, after = ({row["id"] for row in one} for one in (rows, dealt[0]))
    assert 0.2 * len(before) < len(before & after) < 0.8 * len(before)
    by_id = {f"{row['id']}:{row['draw']}": row for row in generations}
    for row in [row for one in dealt for row in one]:
        generation = by_id[row["id"]]
        assert row["input_ids"] == generation["prompt_ids"] + generation["completion_ids"]
        assert row["target_start"] == len(row["input_ids"]) - 1
