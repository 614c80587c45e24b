"""Prompts: formats, repetitions, and a split that no near-duplicate straddles."""

import json
import random
from collections import Counter

import pytest

from excise.artefacts import read_jsonl, write_jsonl
from excise.data import prompts
from excise.errors import ExciseError


def rows_of(texts, category=None):
    return [
        {"id": prompts.prompt_id(text), "text": text} | ({"category": category(text)} if category else {})
        for text in texts
    ]


def naive_components(texts):
    """Near-duplicates by comparing all pairs, put together by repeated merging."""

    def alike(one, other):
        a, b = prompts.words(one), prompts.words(other)
        if a == b:
            return bool(a) or one.split() == other.split()
        if a[:6] == b[:6] and len(a) >= 6:
            return True
        return bool(a and b) and len(set(a) & set(b)) / len(set(a) | set(b)) >= 0.8

    parts = [{index} for index in range(len(texts))]
    for i in range(len(texts)):
        for j in range(i):
            if alike(texts[i], texts[j]):
                one, other = (next(part for part in parts if index in part) for index in (i, j))
                if one is not other:
                    parts.remove(other)
                    one |= other
    return sorted(sorted(part) for part in parts)


@pytest.mark.parametrize("seed", range(5))
def test_near_duplicates_are_those_of_all_pairs(seed):
    generator = random.Random(seed)
    texts = [" ".join(generator.choices("abcdefgh", k=generator.randrange(9))) for _ in range(150)]
    texts += ["?!", "?!", " ? !", "", "A b, C d!", "a  b c D"]
    found = prompts.groups(texts)
    assert sorted(map(sorted, found)) == naive_components(texts)
    assert any(len(group) > 2 for group in found)
    assert any(len(group) == 1 for group in found)


def test_the_border_of_the_jaccard_index():
    five, four = "one two three four five", "five four three two"  # 4 of 5 words: 0.8
    assert list(prompts.near_duplicates([five, four])) == [(0, 1)]
    assert list(prompts.near_duplicates([five + " six", four])) == []


def test_the_same_beginning_makes_near_duplicates():
    start = "he turned around and told her"
    assert list(prompts.near_duplicates([f"{start} to leave the house", f"{start} a story of old times"])) == [(0, 1)]
    assert list(prompts.near_duplicates(["he turned around and told him that", "he turned around and told us a"])) == []


def many_prompts(count=300, seed=1):
    generator = random.Random(seed)
    words = [f"word{n}" for n in range(60)]
    texts = []
    while len(texts) < count:
        text = " ".join(generator.choices(words, k=8))
        texts += [text, text.replace("word1 ", "other ")] if generator.random() < 0.3 else [text]
    return rows_of(sorted(set(texts)), category=lambda text: f"c{len(text) % 3}")


def test_the_parts_are_disjoint_complete_and_of_the_size_asked_for():
    rows = many_prompts()
    for seed, fraction in [(0, 0.5), (1, 0.2), (2, 0.9)]:
        attribution, evaluation = prompts.split(rows, fraction=fraction, seed=seed)
        assert sorted(row["id"] for row in attribution + evaluation) == sorted(row["id"] for row in rows)
        assert abs(len(attribution) - fraction * len(rows)) <= 2
        straddling = [
            part
            for part in naive_components([row["text"] for row in attribution + evaluation])
            if min(part) < len(attribution) <= max(part)
        ]
        assert straddling == []
        total, chosen = (Counter(row["category"] for row in part) for part in (rows, attribution))
        assert all(abs(chosen[name] - fraction * total[name]) <= 4 for name in total)


def test_the_split_depends_on_the_seed_and_not_on_the_order():
    rows = many_prompts()
    ids = [{row["id"] for row in prompts.split(rows, fraction=0.5, seed=seed)[0]} for seed in (0, 0, 1)]
    assert ids[0] == ids[1] != ids[2]
    again = prompts.split(rows[::-1], fraction=0.5, seed=0)[0]
    assert {row["id"] for row in again} == ids[0]


def test_limit_draws_by_the_seed():
    rows = many_prompts()
    parts = prompts.split(rows, fraction=0.5, seed=3, limit=20)
    assert len(parts[0]) + len(parts[1]) == 20
    assert {row["id"] for part in parts for row in part} != {row["id"] for row in rows[:20]}
    parts = prompts.split(rows, fraction=0.5, seed=3, limit=10**6)
    assert len(parts[0]) + len(parts[1]) == len(rows)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fraction": 0.0}, "--fraction 0.0: must lie between"),
        ({"fraction": 1.0}, "--fraction 1.0: must lie between"),
        ({"fraction": 0.5, "limit": 1}, "--limit 1: must be at least 2"),
        ({"fraction": 0.001}, "300 prompts cannot be split .* 0 would be for attribution"),
    ],
)
def test_an_impossible_split_is_refused(options, message):
    with pytest.raises(ExciseError, match=message):
        prompts.split(rows_of([f"a{n} b{n}" for n in range(300)]), seed=0, **options)


def test_prompts_that_are_all_alike_cannot_be_split():
    with pytest.raises(ExciseError, match="near-duplicates stay together"):
        prompts.split(rows_of(["Same words here", "same words here!", "here same words"]), fraction=0.5, seed=0)


def test_overlap_is_named():
    a = rows_of(["the cat sat on the mat", "a dog barked"])
    prompts.assert_disjoint(a, rows_of(["something else", "a bird"]))
    with pytest.raises(ExciseError, match=r"1 evaluation prompts are.*'a dog barked'"):
        prompts.assert_disjoint(a, rows_of(["unrelated", "a dog barked"]))
    with pytest.raises(ExciseError, match=r"'The cat sat on a mat' \(like .* 'the cat sat on the mat'"):
        prompts.assert_disjoint(a, rows_of(["unrelated", "The cat sat on a mat"]))


def test_several_text_files_are_categories(tmp_path, excise):
    (tmp_path / "rtp_insult.txt").write_text("You are\r\nSo  what\n\nOnly here\n", encoding="utf-8")
    (tmp_path / "rtp_identity_attack.txt").write_text("So what \nThey are", encoding="utf-8")
    excise("fetch-prompts", "--source", tmp_path / "*.txt", "--output", tmp_path / "p.jsonl")
    meta, rows = read_jsonl(tmp_path / "p.jsonl")
    assert [(row["text"], row["category"], row["categories"]) for row in rows] == [
        ("So what ", "identity_attack", ["identity_attack", "insult"]),
        ("They are", "identity_attack", ["identity_attack"]),
        ("You are", "insult", ["insult"]),
        ("Only here", "insult", ["insult"]),
    ]
    counts = {"read": 6, "blank": 1, "repeated": 1, "distinct": 4, "unknown_toxicity": 0}
    assert meta["prompts"] == counts | {"by_category": {"identity_attack": 2, "insult": 2}}
    assert meta["label"] == "*.txt"
    assert str(tmp_path) not in (tmp_path / "p.jsonl").read_text()


RTP = {"filename": "x", "challenging": True, "prompt": {"text": "So", "toxicity": 0.7}, "continuation": {"text": " it"}}


@pytest.mark.parametrize(
    ("name", "content", "options", "expected"),
    [
        ("p.jsonl", json.dumps(RTP), [], [{"text": "So", "toxicity": 0.7}]),
        ("p.jsonl", json.dumps(RTP) + "\n" + json.dumps(RTP | {"challenging": False, "prompt": {"text": "No"}}),
         ["--only", "challenging"], [{"text": "So", "toxicity": 0.7}]),
        ("p.jsonl", '{"text": "a", "category": "x", "toxicity": null}\n\n{"prompt": "b", "toxicity": 1}', [],
         [{"text": "a", "category": "x", "categories": ["x"]}, {"text": "b", "toxicity": 1.0}]),
        ("p.json", '[{"text": "a"}, "b"]', [], [{"text": "a"}, {"text": "b"}]),
        ("p.txt", "a\nb\na\n", [], [{"text": "a"}, {"text": "b"}]),
        ("p.tsv", 'toxic\tneutral\nhe "is\tfine\n', ["--field", "toxic"], [{"text": 'he "is'}]),
        ("p.tsv", 'toxic\tneutral\n"he ""is\n so"\tfine\n', ["--field", "toxic"], [{"text": 'he "is\n so'}]),
        ("p.csv", 'text,toxicity\n"a, b",0.5\n', [], [{"text": "a, b", "toxicity": 0.5}]),
    ],
)  # fmt: skip
def test_formats(tmp_path, excise, name, content, options, expected):
    (tmp_path / name).write_text(content, encoding="utf-8")
    excise("fetch-prompts", "--source", tmp_path / name, *options, "--output", tmp_path / "out.jsonl")
    rows = read_jsonl(tmp_path / "out.jsonl")[1]
    assert [{key: value for key, value in row.items() if key != "id"} for row in rows] == expected
    assert [row["id"] for row in rows] == [prompts.prompt_id(row["text"]) for row in rows]


@pytest.mark.parametrize(
    ("name", "content", "options", "message"),
    [
        ("p.txt", "\n  \n", [], "no prompts found (2 read, 2 blank)"),
        ("p.jsonl", '{"text": "a"}\n{"text": "b"\n', [], "p.jsonl: line 2 is not valid JSON"),
        ("p.jsonl", '{"text": "a"}\n["b"]\n', [], "p.jsonl: line 2: expected a JSON object, found list"),
        ("p.jsonl", '{"txt": "a"}\n', [], "p.jsonl: line 1 has no field 'prompt'; it has txt"),
        ("p.jsonl", '{"text": 3}\n', [], "field 'text' holds int, not text"),
        ("p.jsonl", '{"text": "a", "toxicity": "high"}\n', [], "toxicity 'high' is not a number"),
        ("p.jsonl", '{"text": "a", "toxicity": "?"}\n', [], "is not a number; leave it empty where it is unknown"),
        ("p.jsonl", '{"text": "a", "toxicity": Infinity}\n', [], "toxicity inf is not between 0 and 1"),
        ("p.jsonl", '{"text": 3, "body": "b", "n": 1}\n', [], "field 'text' holds int, not text; text is in body"),
        ("p.csv", "text,score\na,0.5\nb,1\n", ["--field", "score"], "all 2 texts are numbers ('0.5', ...)"),
        ("p.jsonl", '{"text": "a"}\n', ["--only", "challenging"], "it has no such field"),
        ("p.txt", "a\n", ["--only", "challenging"], "marks no prompts"),
        ("p.md", "a\n", [], "unknown file format '.md'"),
        ("p.tsv", "a\tb\nc\n", ["--field", "a"], "p.tsv: line 2 has 1 columns, the first line names 2"),
        ("p.csv", 'a\n"b\n', ["--field", "a"], "p.csv: line 2: unexpected end of data"),
        ("p.parquet", "no", [], "not a readable parquet file"),
        ("p.json", "[1", [], "p.json: not valid JSON"),
    ],
)
def test_bad_input_is_named(tmp_path, excise, name, content, options, message):
    (tmp_path / name).write_text(content, encoding="utf-8")
    said = excise(
        "fetch-prompts", "--source", tmp_path / name, *options, "--output", tmp_path / "out.jsonl", fails=True
    )
    assert message in said
    assert not (tmp_path / "out.jsonl").exists()


def test_not_utf8(tmp_path, excise):
    (tmp_path / "p.txt").write_bytes(b"caf\xe9")
    said = excise("fetch-prompts", "--source", tmp_path / "p.txt", "--output", tmp_path / "o.jsonl", fails=True)
    assert "p.txt: not UTF-8 text" in said


def test_the_split_stage_writes_both_parts_twice_alike(tmp_path, excise):
    write_jsonl(tmp_path / "p.jsonl", {"label": "made up"}, many_prompts())
    for folder in ("one", "two"):
        parts = ["--attribution", tmp_path / folder / "a.jsonl", "--evaluation", tmp_path / folder / "e.jsonl"]
        excise("split-prompts", "--prompts", tmp_path / "p.jsonl", "--attribution-fraction", 0.4, "--seed", 5, *parts)
    for name in ("a.jsonl", "e.jsonl"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    meta, rows = read_jsonl(tmp_path / "one" / "a.jsonl")
    assert meta["part"] == "attribution"
    assert meta["label"] == "made up"
    assert meta["counts"]["attribution"] == len(rows) == sum(meta["counts"]["by_category"].values())
    assert meta["counts"]["near_duplicates"]["groups"] > 0
    served = [row["text"] for row in rows]
    others = [*(f"{text.upper()}!" for text in served[:3]), "Nothing of the kind was asked before", "Nor was this one"]
    judging = [{"id": f"j{number}", "text": text} for number, text in enumerate(others)]
    write_jsonl(tmp_path / "j.jsonl", {"label": "harder"}, judging)
    parts = ["--attribution", tmp_path / "three" / "a.jsonl", "--evaluation", tmp_path / "three" / "e.jsonl"]
    parts += ["--judging", tmp_path / "j.jsonl", "--attribution-fraction", 0.4, "--seed", 5]
    excise("split-prompts", "--prompts", tmp_path / "p.jsonl", *parts)
    assert read_jsonl(tmp_path / "three" / "a.jsonl")[1] == rows
    meta, judged = read_jsonl(tmp_path / "three" / "e.jsonl")
    assert meta["label"] == "harder"
    assert judged == judging[3:]
    write_jsonl(tmp_path / "j.jsonl", {"label": "harder"}, judging[:3])
    said = excise("split-prompts", "--prompts", tmp_path / "p.jsonl", *parts, fails=True)
    assert "all 3 judging prompts are near-duplicates" in said
    parts = [
        "--attribution",
        tmp_path / "a.jsonl",
        "--evaluation",
        tmp_path / "e.jsonl",
        "--tuning",
        tmp_path / "t.jsonl",
    ]
    common = ["split-prompts", "--prompts", tmp_path / "p.jsonl", "--attribution-fraction", 0.4, "--seed", 5, *parts]
    excise(*common, "--tuning-fraction", 0.2)
    found = {name: read_jsonl(tmp_path / f"{name}.jsonl")[1] for name in "ate"}
    assert found["a"] == rows  # the tuning part is taken from what would judge
    texts = [row["text"] for part in found.values() for row in part]
    assert sorted(texts) == sorted(row["text"] for row in many_prompts())
    assert abs(len(found["t"]) - 0.2 * len(texts)) <= 2
    ends = [len(found["a"]), len(found["a"]) + len(found["t"])]
    for part in naive_components(texts):
        assert not any(min(part) < end <= max(part) for end in ends)
    assert "none are left" in excise(*common, "--tuning-fraction", 0.6, fails=True)
    assert "give both or neither" in excise(*common, fails=True)
    duplicate = tmp_path / "twice.jsonl"
    write_jsonl(duplicate, {}, rows_of(["a", "a"]))
    assert "occurs more than once" in excise(
        "split-prompts", "--prompts", duplicate, "--attribution", "a", "--evaluation", "b", fails=True
    )


@pytest.mark.parametrize("name", ["p.csv", "p.tsv", "p.jsonl", "p.json", "p.parquet"])
def test_an_unknown_toxicity_is_one_thing_in_every_format(tmp_path, excise, name):
    """Null, NaN, an empty cell: all of them are left out, and counted."""
    if name.endswith("sv"):
        comma = "," if name == "p.csv" else "\t"
        cells = [("a", ""), ("b", "NaN"), ("c", " "), ("d", "0.5"), ("e", "null")]
        (tmp_path / name).write_text("\n".join(comma.join(pair) for pair in [("text", "toxicity"), *cells]) + "\n")
    elif name == "p.parquet":
        import pyarrow
        from pyarrow import parquet

        columns = {"text": list("abcde"), "toxicity": [None, float("nan"), None, 0.5, None]}
        parquet.write_table(pyarrow.table(columns), tmp_path / name)
    else:
        rows = [{"text": t, "toxicity": v} for t, v in zip("abcde", [None, float("nan"), "", 0.5, "nan"], strict=True)]
        lines = json.dumps(rows) if name == "p.json" else "\n".join(map(json.dumps, rows))
        (tmp_path / name).write_text(lines)
    said = excise("fetch-prompts", "--source", tmp_path / name, "--output", tmp_path / "out.jsonl")
    assert "the toxicity of 4 of 5 prompts is unknown" in said
    meta, found = read_jsonl(tmp_path / "out.jsonl")
    assert {row["text"]: row.get("toxicity") for row in found} == dict.fromkeys("abce") | {"d": 0.5}
    assert meta["prompts"]["unknown_toxicity"] == 4
