"""What jobs ask for: each formula against numbers worked out by hand, with everything that it depends on."""

import json

import pytest

from excise.config.attribution import Attribution
from excise.config.evaluation import Evaluation, Perplexity
from excise.config.references import File, Picked, Windows
from excise.stages import costs

SIZE = costs.Size(parameters=1_000_000, layers=2, neurons=50, width=4)


def test_memory_is_weights_and_what_is_kept_per_token():
    assert costs.Cost(0, lambda: 0).mb(SIZE) == pytest.approx(4.8)
    assert costs.export_mb(SIZE, ["BF16"]) == costs.export_mb(SIZE, ["F32"]) == pytest.approx(8.0)
    assert costs.export_mb(SIZE, ["BF16", "F64"]) == pytest.approx(16.0)
    kept = costs.Cost(at_once=1000, tokens=lambda: 0, numbers=8).mb(SIZE)
    assert kept == pytest.approx(4.8 + 8 * 1000 * 2 * 50 * 4 / 1e6)


def test_minutes_are_operations_over_speed_rounded_up():
    cost = costs.Cost(at_once=1, tokens=lambda: 300_000, passes=3)
    assert cost.minutes(SIZE, speed=1e9) == 10 + 30  # 2 x 3 x 1e6 x 3e5 = 1.8e12 operations, 1800 s
    assert cost.minutes(SIZE, speed=0.99e9) == 10 + 31


def test_generation_and_fluency(tmp_path):
    (tmp_path / "rows.jsonl").write_text("{}\n" * 7)
    evaluation = Evaluation(num_generations=3, max_new_tokens=16, batch_size=5, shards=2).model_dump()
    cost = costs.generate(evaluation, str(tmp_path / "rows.jsonl"))
    assert cost.at_once == 5 * 80
    assert cost.tokens() == 7 * 3 * 80 / 2
    cost = costs.fluency(evaluation, str(tmp_path / "rows.jsonl"))
    assert (cost.at_once, cost.tokens()) == (5 * 80, 7 * 80)


@pytest.mark.parametrize(
    ("reference", "length", "samples"),
    [
        (Windows(kind="windows", text="c4", windows=9, seqlen=128), 128, 9),
        (File(kind="file", source="x", count=9), 512, 9),
        (Picked(kind="generations", at_least=0.5, count=9), 84, 9),
    ],
    ids=lambda value: getattr(value, "kind", str(value)),
)
def test_attribution(reference, length, samples):
    cost = costs.attribute(Attribution(batch_size=4).model_dump(), reference.model_dump(), 20, seeds=2)
    assert cost.at_once == 4 * length
    assert cost.tokens() == length * 9 * 2
    assert (cost.numbers, cost.passes) == (8, 3)


def test_perplexity_counts_windows_or_bytes(tmp_path):
    text = tmp_path / "text.jsonl"
    text.write_text("x" * 300)
    some = Perplexity(windows=3, seqlen=16, batch_size=2).model_dump()
    assert costs.perplexity(some, str(text)).at_once == 32
    assert costs.perplexity(some, str(text)).tokens() == 48
    assert costs.perplexity(Perplexity(seqlen=16).model_dump(), str(text)).tokens() == 100
    sliding = Perplexity(protocol="sliding", seqlen=16, stride=4).model_dump()
    assert costs.perplexity(sliding, str(text)).tokens() == 400


def test_a_file_that_is_not_there_is_not_known_yet(tmp_path):
    evaluation = Evaluation().model_dump()
    with pytest.raises(FileNotFoundError):
        costs.generate(evaluation, str(tmp_path / "none")).tokens()


@pytest.mark.parametrize(("longest", "at_once"), [(30, 64), (900, 300), (90_000, 2048)])
def test_capability_cuts_requests(tmp_path, longest, at_once):
    plan = tmp_path / "plan.json"
    plan.write_text(
        json.dumps(
            {
                "tasks": {
                    "a": {"longest": longest, "characters": 600, "generated": 5},
                    "b": {"longest": 3, "characters": 3, "generated": 0},
                }
            }
        )
    )
    cost = costs.capability(8, str(plan))
    assert cost.at_once == 8 * at_once
    assert cost.tokens() == 206


def test_rows_of_files_but_not_of_folders(tmp_path):
    (tmp_path / "rows.jsonl").write_bytes(b"x" * 999_999 + b"\n")
    paths = [str(tmp_path), str(tmp_path / "rows.jsonl")]
    assert costs.rows_mb(paths) == pytest.approx(6)
    assert costs.rows_mb(paths, shards=3) == pytest.approx(2)
    (tmp_path / "rows.jsonl").write_text("{}\n" * 1200)
    assert costs.rows_minutes(paths, seconds=0.5, shards=2) == 20 + 5
