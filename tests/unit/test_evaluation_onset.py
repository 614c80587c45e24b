"""The token at which an answer begins to show the behaviour, from the function to the reference set."""

import itertools
import json
from pathlib import Path

import pytest

from excise.errors import ExciseError
from excise.evaluation.onset import onset
from excise.models.loading import load_tokenizer
from tests.workflow import tiny_scorer


class Lookup:
    """A scorer that knows the score of every text."""

    name = "lookup"

    def __init__(self, known: dict[str, float]) -> None:
        self.facts: dict[str, str] = {}
        self.known = known

    def __call__(self, texts: list[str]) -> list[float]:
        return [self.known[text] for text in texts]


def letters(ids):
    return "".join(chr(97 + i) for i in ids)


def test_the_first_prefix_at_the_threshold_counts_even_where_scores_fall_again():
    scorer = Lookup({"a": 0.1, "ab": 0.5, "abc": 0.2, "abcd": 0.9})
    assert onset(scorer, letters, [0, 1, 2, 3], 0.5) == 1
    assert onset(scorer, letters, [0, 1, 2, 3], 0.51) == 3
    assert onset(scorer, letters, [0, 1, 2, 3], 0.1) == 0


def test_an_answer_that_never_shows_the_behaviour_is_an_error():
    with pytest.raises(ExciseError, match="no beginning of 'ab' scores at or above"):
        onset(Lookup({"a": 0.1, "ab": 0.2}), letters, [0, 1], 0.5)


@pytest.fixture
def generations(excise, tiny_model, tmp_path):
    prompts = tmp_path / "prompts.jsonl"
    texts = ["the cat sat on", "rain", "people walked home", "letters books", "grey skies", "dinner friends"]
    prompts.write_text("".join(json.dumps({"id": f"p{n}", "text": text}) + "\n" for n, text in enumerate(texts)))
    path = tmp_path / "generations.jsonl"
    options = ("--num-generations", 3, "--max-new-tokens", 6, "--device", "cpu", "--output", path)
    excise("generate", "--model", tiny_model, "--prompts", prompts, *options)
    return path


def rows(path: Path):
    return [json.loads(line) for line in path.read_text().splitlines()[1:]]


def test_a_reference_set_of_onsets_ends_where_the_behaviour_begins(
    excise, tiny_model, generations, tmp_path, monkeypatch
):
    monkeypatch.syspath_prepend(str(Path(tiny_scorer.__file__).parent))
    scores, reference = tmp_path / "scores.jsonl", tmp_path / "reference.jsonl"
    score = ("score", "--scorer", "python:tiny_scorer:scores", "--generations", generations, "--output", scores)
    onset_at = ("--onset-at", 0.5, "--model", tiny_model)
    shards = [tmp_path / f"shard-{index}.jsonl" for index in range(2)]
    for index, path in enumerate(shards):
        excise(*score, *onset_at, "--batch-size", 4, "--shard", f"{index}/2", "--output", path)
    excise("score", "--merge", *shards, "--output", tmp_path / "merged.jsonl")
    excise(*score, *onset_at, "--batch-size", 4)
    assert (tmp_path / "merged.jsonl").read_bytes() == scores.read_bytes()
    reference_of = ("reference", "--kind", "generations", "--generations", generations, "--scores", scores)
    choice = ("--at-least", 0.6, "--minimum", 1, "--span", "onset", "--output", reference)
    excise(*reference_of, *choice)

    tokenizer, expected = load_tokenizer(tiny_model), {}
    for row, scored in zip(rows(generations), rows(scores), strict=True):
        assert ("onset" in scored) == (scored["score"] >= 0.5)
        if scored["score"] >= 0.6:
            for length in itertools.count(1):  # the definition, token by token
                ids = row["completion_ids"][:length]
                if tiny_scorer.scores([tokenizer.decode(ids, skip_special_tokens=True)])[0] >= 0.5:
                    break
            expected[f"{row['id']}:{row['draw']}"] = row["prompt_ids"] + ids, len(row["prompt_ids"]) + length - 1
    found = {row["id"]: (row["input_ids"], row["target_start"]) for row in rows(reference)}
    assert found == expected
    assert len(found) > 2
    assert all(start == len(ids) - 1 for ids, start in found.values())

    excise(*score)
    assert "carries no onset" in excise(*reference_of, *choice, fails=True)
    assert "belong together" in excise(*score, "--onset-at", 0.5, fails=True)
    assert "'half' is not one of generation, onset" in excise(*reference_of, *choice, "--span", "half", fails=True)
