"""Figures of generations by hand: repetition, emptiness, and the behaviour by prompt."""

from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest

from excise.artefacts import sha256_file, write_jsonl
from excise.evaluation.degeneration import distinct, ngrams, response_uniqueness
from excise.tasks import behaviour, degeneration
from excise.tasks.generated import Generations, read_generations
from excise.tasks.measurement import Measurement

A, B = [1, 2, 1, 2, 1], [1, 2, 3]


def test_ngrams_by_hand() -> None:
    assert ngrams(A, 2) == [(1, 2), (2, 1), (1, 2), (2, 1)]
    assert ngrams(B, 3) == [(1, 2, 3)]
    assert ngrams(B, 4) == []


def test_distinct_by_hand() -> None:
    # 1-grams 1 2 1 2 1 | 1 2 3: 3 of 8; 2-grams 12 21 12 21 | 12 23: 3 of 6; 3-grams 121 212 121 | 123: 3 of 4.
    assert [distinct([A, B], n) for n in (1, 2, 3)] == [3 / 8, 3 / 6, 3 / 4]


def test_ngrams_do_not_cross_texts() -> None:
    assert distinct([[1], [2], [3]], 2) is None


def test_uniqueness_by_hand() -> None:
    assert response_uniqueness(A) == 2 / 5
    assert response_uniqueness([7] * 4) == 1 / 4
    assert response_uniqueness([]) is None


def generations(folder: Path, prompts: list[list[tuple[str, list[int]]]], **known: list[Any]) -> Generations:
    rows = [
        {"id": f"p{n}", "draw": draw, "completion": text, "completion_ids": ids}
        | {key: values[n] for key, values in known.items() if values[n] is not None}
        for n, made in enumerate(prompts)
        for draw, (text, ids) in enumerate(made)
    ]
    write_jsonl(folder / "g.jsonl", {}, rows)
    return read_generations(folder / "g.jsonl")


def language(folder: Path, prompts: list[list[tuple[str, list[int]]]]) -> Measurement:
    return degeneration.measure(Namespace(), generations(folder, prompts))[0]


def test_all_figures(tmp_path: Path) -> None:
    found = language(tmp_path, [[("x y x y x", A), ("x y z", B)], [(" \n", [9, 9]), ("", [])]])
    figures = {name: metric.figure for name, metric in found.metrics.items()}
    assert figures["rur"] == pytest.approx((2 / 5 + 1 + 1 / 2) / 3)
    assert figures["repetitive_share"] == pytest.approx(2 / 3)  # 0.5 itself is repetitive
    assert figures["empty_share"] == 0.5
    assert figures["mean_tokens"] == 10 / 4
    assert figures["distinct_1"] == 4 / 10
    assert figures["distinct_3"] == 3 / 4
    assert figures["mean_distinct_1"] == pytest.approx((2 / 5 + 1 + 1 / 2) / 3)
    assert figures["mean_distinct_3"] == pytest.approx((2 / 3 + 1) / 2)
    assert found.items == ["p0", "p1"]
    assert found.metrics["distinct_2"].values is None  # over all tokens together


def test_nothing_but_empty_continuations(tmp_path: Path) -> None:
    found = language(tmp_path, [[("", [])], [("", [])]])
    figures = {name: metric.figure for name, metric in found.metrics.items()}
    assert figures["empty_share"] == 1.0
    assert figures["rur"] is None
    assert figures["repetitive_share"] is None
    assert figures["distinct_1"] is None


SCORES = [[0.1, 0.5, 0.9], [0.2, 0.3, 0.1], [0.49999, 0.0, 0.0]]


def scored(folder: Path, **known: list[Any]) -> Measurement:
    made = generations(folder, [[("x", [1])] * 3] * 3, **known)
    rows = [
        {"id": f"p{n}", "draw": draw, "score": score}
        for n, scores in enumerate(SCORES)
        for draw, score in enumerate(scores)
    ]
    settings = {"generations": sha256_file(folder / "g.jsonl")}
    write_jsonl(folder / "s.jsonl", {"settings": settings, "scorer": {"name": "judge"}}, rows)
    words = {"noun": "toxicity", "adjective": "toxic"}
    return behaviour.measure(Namespace(scores=[folder / "s.jsonl"], threshold=0.5, **words), made)[0]


def test_figures_by_hand(tmp_path: Path) -> None:
    found = scored(tmp_path)
    figures = {name: metric.figure for name, metric in found.metrics.items()}
    assert figures["mean"] == pytest.approx((0.1 + 0.5 + 0.9 + 0.2 + 0.3 + 0.1 + 0.49999) / 9)
    assert figures["expected_maximum"] == pytest.approx((0.9 + 0.3 + 0.49999) / 3)
    assert figures["probability"] == pytest.approx(1 / 3)
    assert figures["share"] == pytest.approx(2 / 9)  # 0.5 itself counts, 0.49999 does not
    assert (found.name, found.label, found.item) == ("toxicity", "judge", "prompt")
    assert found.metrics["share"].values is not None
    assert found.metrics["share"].values.tolist() == [2 / 3, 0, 0]
    assert found.metrics["share"].title == "toxic share (judge >= 0.5)"
    assert [name for name, metric in found.metrics.items() if metric.compared] == ["share"]


def test_category_and_toxicity_of_the_prompts_are_kept(tmp_path: Path) -> None:
    found = scored(tmp_path, category=["b", "a", "b"], toxicity=[0.5, 0.49, None])
    assert found.groups == {"category": ["b", "a", "b"], "toxicity": [0.5, 0.49, None]}
    assert scored(tmp_path).groups == {}
