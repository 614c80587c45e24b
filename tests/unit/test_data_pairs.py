"""Pairs: made in a model's tokens, checked, split; pairs of a user."""

import json

import pytest

from excise.data.pair_tasks import CORRUPTIONS, TASKS, candidates, one_token_words
from excise.data.pairs import Pair, TextPair, read_pairs, read_texts, rows, split, tokenised
from excise.errors import ExciseError

WORDS = {}


def words(text):
    """A tokenizer that knows words with the space before them, and digits one by one."""
    import re

    parts = re.findall(r" ?[A-Za-z']+|\d|\s|[^\w\s]", text)
    return [WORDS.setdefault(part, len(WORDS)) for part in parts]


def two_digits(text):
    import re

    parts = re.findall(r" ?[A-Za-z']+|\d\d|\d|\s|[^\w\s]", text)
    return [WORDS.setdefault(part, len(WORDS)) for part in parts]


@pytest.mark.parametrize("tokenise", [words, two_digits])
@pytest.mark.parametrize(("task", "corruption"), [(t, c) for t in TASKS for c in CORRUPTIONS.get(t, (None,))])
def test_tasks_make_pairs_of_one_length_per_template(task, corruption, tokenise):
    texts = candidates(task, corruption, tokenise, count=40, seed=0)
    found = [tokenised(pair, tokenise, task) for pair in texts]
    assert len({pair.id for pair in found}) == len(found)
    lengths = {}
    for pair in found:
        lengths.setdefault(pair.template, set()).add(len(pair.clean_ids))
    assert len(lengths) >= 4
    assert all(len(of_one) == 1 for of_one in lengths.values())
    halves = split(found, count=16, seed=0, by_template=False)
    prompts = [{ids for pair in half for ids in (pair.clean_ids, pair.corrupt_ids)} for half in halves.values()]
    assert [len(half) for half in halves.values()] == [16, 16]
    assert not prompts[0] & prompts[1]
    assert candidates(task, corruption, tokenise, count=40, seed=0) == texts
    assert candidates(task, corruption, tokenise, count=40, seed=1) != texts


def test_a_flip_changes_the_last_name_alone():
    for pair in candidates("ioi", None, words, count=10, seed=3):
        clean, corrupted = pair.clean.split(), pair.corrupted.split()
        (changed,) = [(a, b) for a, b in zip(clean, corrupted, strict=True) if a != b]
        assert changed == (pair.wrong[0].strip(), pair.answers[0].strip())
        assert clean.count(changed[0]) == 2
        assert clean.count(changed[1]) == 1


def test_greater_than_by_digits_and_by_two():
    for tokenise, size in ((words, 1), (two_digits, 2)):
        for pair in candidates("greater-than", None, tokenise, count=10, seed=1):
            year = next(word for word in pair.clean.replace(".", "").split() if len(word) == 4 and word.isdigit())[2:]
            assert {len(answer) for answer in pair.answers} == {size}
            assert all(int(answer) > int(year[:size]) for answer in pair.answers)
            if size == 2:
                assert all(int(answer) <= int(year) for answer in pair.wrong)


def test_halves_that_share_no_template():
    found = [tokenised(pair, words, "ioi") for pair in candidates("ioi", None, words, count=60, seed=0)]
    halves = split(found, count=10, seed=0, by_template=True)
    first, second = ({pair.template for pair in half} for half in halves.values())
    assert len(first) == len(second) == 3
    assert not first & second
    with pytest.raises(ExciseError, match="at least two"):
        split([pair for pair in found if pair.template == found[0].template], count=2, seed=0, by_template=True)
    with pytest.raises(ExciseError, match="not enough"):
        split(found, count=10_000, seed=0, by_template=False)


def test_words_of_several_tokens_are_left_out():
    def letters(text):
        return [ord(letter) for letter in text]

    assert one_token_words(words)(["Mary"]) == [" Mary"]
    assert one_token_words(letters)(["Mary"]) == []
    with pytest.raises(ExciseError, match="only 0 of the words"):
        candidates("ioi", None, letters, count=4, seed=0)


@pytest.mark.parametrize(
    ("pair", "said"),
    [
        (TextPair("a b", "a b c", (" d",), (" e",)), "has 2 tokens, the corrupted one 3"),
        (TextPair("a b", "a b", (" d",), (" e",)), "nothing to patch"),
        (TextPair("a b", "a c", (" d e",), (" e",)), "exactly one"),
        (TextPair("a b", "a c", ("d",), ("e",)), "Should it be ' d', with the space"),
        (TextPair("a b", "a c", ("d",), (" e",)), "begin with a space and some do not"),
        (TextPair("a b", "a c", (" d",), (" d",)), "a right and a wrong answer"),
        (TextPair("a b", "a c", (), (" d",)), "at least one"),
    ],
)
def test_pairs_that_cannot_be_compared_are_refused(pair, said):
    with pytest.raises(ExciseError, match=said):
        tokenised(pair, words, "mine")


def test_pairs_of_a_user(tmp_path):
    path = tmp_path / "mine.jsonl"
    row = {"clean": "a b", "corrupted": "a c", "answers": " d", "wrong": [" e", " f"], "template": "t"}
    path.write_text(json.dumps(row))
    assert read_texts(path) == [TextPair("a b", "a c", (" d",), (" e", " f"), "t")]
    path.write_text(json.dumps(row | {"answers": 3}))
    with pytest.raises(ExciseError, match="pair 1: clean and corrupted must be text"):
        read_texts(path)
    path.write_text(json.dumps({"clean": "a"}))
    with pytest.raises(ExciseError, match="lacks answers"):
        read_texts(path)


class Config:
    vocab_size = 10
    max_position_embeddings = 4


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"clean_ids": [1, 99]}, "made for another model"),
        ({"clean_ids": [1, 2, 3]}, "as many"),
        ({"clean_ids": [1, 2, 3, 4, 5], "corrupt_ids": [1, 2, 3, 4, 6]}, "positions for 4"),
        ({"answers": []}, "at least one"),
        ({"answers": ["a"]}, "list of token ids"),
    ],
)
def test_pairs_that_do_not_fit_the_model_are_refused(tmp_path, change, said):
    path = tmp_path / "pairs.jsonl"
    (row,) = rows([Pair("p", (1, 2), (1, 3), (4,), (5,), "t", "g")])
    path.write_text(json.dumps(row))
    assert read_pairs(path, Config)[1][0].clean_ids == (1, 2)
    path.write_text(json.dumps(row | change))
    with pytest.raises(ExciseError, match=said):
        read_pairs(path, Config)


def test_unknown_tasks_and_corruptions():
    with pytest.raises(ExciseError, match=r"unknown task 'ioy'.*Did you mean 'ioi'"):
        candidates("ioy", None, words, count=1, seed=0)
    with pytest.raises(ExciseError, match="unknown corruption 'abc'"):
        candidates("pronouns", "abc", words, count=1, seed=0)
