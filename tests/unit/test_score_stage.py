"""The stage that scores: batches, shards, and what stops it."""

import json
from pathlib import Path

import pytest

from tests.unit.scorers import TEXTS, Run, base, save_classifier, user_module

__all__ = ["base", "user_module"]


@pytest.fixture
def generations(tmp_path: Path) -> Path:
    path = tmp_path / "generations.jsonl"
    rows = [{"id": f"p{n // 2}", "draw": n % 2, "completion": text} for n, text in enumerate(TEXTS)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_stage(excise: Run, generations: Path, tmp_path: Path, user_module: str) -> None:
    output = tmp_path / "scores.jsonl"
    for batch_size in (1, 3, 64):
        options = ("--generations", generations, "--output", output, "--batch-size", batch_size)
        excise("score", "--scorer", f"{user_module}length", *options)
        meta, *rows = (json.loads(line) for line in output.read_text().splitlines())
        assert rows == [
            {"id": "p0", "draw": 0, "score": 20.0},
            {"id": "p0", "draw": 1, "score": 4.0},
            {"id": "p1", "draw": 0, "score": 0.0},
            {"id": "p1", "draw": 1, "score": 54.0},
        ]
    assert meta["meta"]["empty"] == 1
    assert meta["meta"]["scorer"]["name"] == f"{user_module}length"


def test_the_stage_gives_repetition_the_tokens_of_the_model(excise: Run, generations: Path, tmp_path: Path) -> None:
    output = tmp_path / "scores.jsonl"
    command = ("score", "--scorer", "repetition", "--generations", generations, "--output", output)
    assert "completion_ids" in excise(*command, fails=True)
    rows = [json.loads(line) for line in generations.read_text().splitlines()]
    ids = [[3, 3, 3, 3], [1, 2], [], [6, 7, 6]]
    generations.write_text(
        "".join(json.dumps(row | {"completion_ids": one}) + "\n" for row, one in zip(rows, ids, strict=True))
    )
    excise(*command)
    _, *scored = (json.loads(line) for line in output.read_text().splitlines())
    assert [row["score"] for row in scored] == [0.75, 0, 0, pytest.approx(1 / 3)]


def test_stage_writes_nothing_when_the_scorer_fails(
    excise: Run, generations: Path, tmp_path: Path, user_module: str
) -> None:
    output = tmp_path / "scores.jsonl"
    excise("score", "--scorer", f"{user_module}nan", "--generations", generations, "--output", output, fails=True)
    assert not output.exists()
    (tmp_path / "empty.jsonl").write_text("")
    empty = tmp_path / "empty.jsonl"
    messages = excise(
        "score", "--scorer", f"{user_module}length", "--generations", empty, "--output", output, fails=True
    )
    assert "no generations in it" in messages


@pytest.fixture
def long(tmp_path: Path) -> Path:
    """Eleven generations, of very different lengths."""
    path = tmp_path / "long.jsonl"
    texts = ["", "cat", "the cat " * 9, "rain " * 5, *TEXTS, "grey", "on a mat " * 7, "x"]
    rows = [{"id": f"p{n}", "draw": 0, "completion": text} for n, text in enumerate(texts)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("shards", [1, 2, 3, 5])  # of four batches, the last one short: of five shards one is empty
@pytest.mark.parametrize("neural", [True, False])
def test_shards_merge_to_the_bytes_of_one_run(
    excise: Run, base: Path, long: Path, tmp_path: Path, user_module: str, shards: int, neural: bool
) -> None:
    """Of scorers whose scores depend on the other texts of the batch."""
    save_classifier(tmp_path / "judge", base, ["neutral", "toxic"])
    scorer = f"hf:{tmp_path / 'judge'}" if neural else f"{user_module}share"
    score = ("score", "--scorer", scorer, "--threads", 1, "--batch-size", 3, "--generations", long, "--output")
    excise(*score, whole := tmp_path / "whole")
    paths = [tmp_path / f"shard {index}" for index in range(shards)]
    for index, path in enumerate(paths):
        excise(*score, path, "--shard", f"{index}/{shards}")
    excise("score", "--merge", *reversed(paths), "--output", merged := tmp_path / "merged")
    assert merged.read_bytes() == whole.read_bytes()
    assert json.loads(merged.read_text().splitlines()[0])["meta"]["empty"] == 2
    if not neural:
        excise(*score, other := tmp_path / "other", "--batch-size", 4)
        assert other.read_text().splitlines()[1:] != whole.read_text().splitlines()[1:]


def test_shards_that_do_not_make_one_run_are_refused_by_name(
    excise: Run, long: Path, generations: Path, tmp_path: Path, user_module: str
) -> None:
    def score(name: str, shard: str, *more: object, scorer: str = "length", source: Path = long) -> Path:
        files = ("--generations", source, "--output", tmp_path / name)
        excise("score", "--scorer", user_module + scorer, *files, "--batch-size", 3, "--shard", shard, *more)
        return tmp_path / name

    def refused(*paths: Path) -> str:
        message = excise("score", "--merge", *paths, "--output", tmp_path / "merged", fails=True)
        assert not (tmp_path / "merged").exists()
        return message

    first, second, third = (score(f"shard {index}", f"{index}/3") for index in range(3))
    assert "of 3 shards, [0, 2] were not given" in refused(second)
    assert f"{first}: shard 0/3 was given already" in refused(first, second, third, first)
    for path in (
        score("other batches", "2/3", "--batch-size", 4),
        score("other scorer", "2/3", scorer="share"),
        score("other texts", "2/3", source=generations),
        score("other shards", "2/4"),
    ):
        assert f"{path}: not a shard of the same run as {first}" in refused(first, second, path)
    assert f"{long}: not written by excise score" in refused(first, long)
    for wrong in ("3/3", "1", "-1/3", "a/b", "0/0"):
        command = ("--scorer", f"{user_module}length", "--generations", long, "--output", tmp_path / "merged")
        assert f"--shard {wrong}" in excise("score", *command, f"--shard={wrong}", fails=True)
    assert "needed to score" in excise("score", "--scorer", "repetition", "--output", tmp_path / "merged", fails=True)
