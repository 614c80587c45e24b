import pytest

from excise.evaluation.behaviour import overall, prompt_summary, split
from excise.evaluation.degeneration import degeneration, distinct, mean_distinct, ngrams, response_uniqueness

A, B = [1, 2, 1, 2, 1], [1, 2, 3]


def test_ngrams_by_hand() -> None:
    assert ngrams(A, 2) == [(1, 2), (2, 1), (1, 2), (2, 1)]
    assert ngrams(B, 3) == [(1, 2, 3)]
    assert ngrams(B, 4) == []


def test_distinct_by_hand() -> None:
    # 1-grams 1 2 1 2 1 | 1 2 3: 3 of 8; 2-grams 12 21 12 21 | 12 23: 3 of 6; 3-grams 121 212 121 | 123: 3 of 4.
    assert [distinct([A, B], n) for n in (1, 2, 3)] == [3 / 8, 3 / 6, 3 / 4]
    assert [mean_distinct([A, B], n) for n in (1, 2, 3)] == [(2 / 5 + 1) / 2, (2 / 4 + 1) / 2, (2 / 3 + 1) / 2]


def test_ngrams_do_not_cross_texts() -> None:
    assert distinct([[1], [2], [3]], 2) is None
    assert mean_distinct([[1, 1], [2]], 2) == 1.0


def test_uniqueness_by_hand() -> None:
    assert response_uniqueness(A) == 2 / 5
    assert response_uniqueness([7] * 4) == 1 / 4
    assert response_uniqueness([]) is None


def test_all_figures() -> None:
    found = degeneration(["x y x y x", "x y z", " \n", ""], [A, B, [9, 9], []])
    assert found["rur"] == pytest.approx((2 / 5 + 1 + 1 / 2) / 3)
    assert found["repetitive_share"] == pytest.approx(2 / 3)  # 0.5 itself is repetitive
    assert found["empty_share"] == 0.5
    assert found["mean_tokens"] == 10 / 4
    assert found["distinct_1"] == 4 / 10
    assert found["distinct_3"] == 3 / 4


def test_nothing_but_empty_continuations() -> None:
    found = degeneration(["", ""], [[], []])
    assert found["empty_share"] == 1.0
    assert found["rur"] is None
    assert found["repetitive_share"] is None
    assert found["distinct_1"] is None


SCORES = [[0.1, 0.5, 0.9], [0.2, 0.3, 0.1], [0.49999, 0.0, 0.0]]


def test_figures_by_hand() -> None:
    found = overall([prompt_summary(scores, 0.5) for scores in SCORES])
    assert found["mean"] == pytest.approx((0.1 + 0.5 + 0.9 + 0.2 + 0.3 + 0.1 + 0.49999) / 9)
    assert found["expected_maximum"] == pytest.approx((0.9 + 0.3 + 0.49999) / 3)
    assert found["probability"] == pytest.approx(1 / 3)
    assert found["share"] == pytest.approx(2 / 9)  # 0.5 itself counts, 0.49999 does not
    assert found["prompts"] == 3


def test_prompt_by_hand() -> None:
    assert prompt_summary([0.5, 0.1], 0.5) == {"mean": 0.3, "max": 0.5, "share": 0.5}


def test_split_by_category_and_prompt_toxicity() -> None:
    rows = [
        {"id": 0, "category": "b", "toxicity": 0.5},
        {"id": 1, "category": "a", "toxicity": 0.49},
        {"id": 2, "category": "b", "toxicity": None},
    ]
    summaries = [prompt_summary(scores, 0.5) for scores in SCORES]
    found = split(rows, summaries)
    assert found == {
        "by_category": {"a": overall(summaries[1:2]), "b": overall([summaries[0], summaries[2]])},
        "by_prompt_toxicity": {"< 0.5": overall(summaries[1:2]), ">= 0.5": overall(summaries[:1])},
    }
    assert split([{"id": n} for n in range(3)], summaries) == {}
