"""Jobs cut by their work: how many there are, and that one which measures several sets writes what several would."""

from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from excise.artefacts import write_jsonl
from excise.attribution.registry import MEASURED
from excise.config.attribution import Attribution
from excise.config.references import Picked, Windows
from excise.stages import costs
from tests.unit.test_attribution_stages import stage


def jobs(reference: Any, **settings: Any) -> int:
    return costs.attribution_jobs(Attribution(**settings).model_dump(), reference.model_dump(), 20, seeds=3)


WINDOWS = Windows(kind="windows", text="c4", windows=100, seqlen=200)  # 60,000 tokens under three seeds
TOXIC = Picked(kind="generations", at_least=0.5, count=10)  # 3 x 10 x 84 = 2,520


def test_jobs_follow_from_the_work_and_the_wanted_minutes() -> None:
    assert jobs(WINDOWS) == 1
    assert jobs(WINDOWS, minutes=10, tokens_per_second=100) == 1  # 60,000 tokens take ten minutes
    assert jobs(WINDOWS, minutes=4, tokens_per_second=100) == 3
    assert jobs(TOXIC, minutes=4, tokens_per_second=100) == 1  # small work is not cut
    assert jobs(WINDOWS, minutes=0.001, tokens_per_second=1, batch_size=8) == 13  # nor a batch


@pytest.mark.parametrize(("minutes", "samples"), [(None, 100), (4, 34)])
def test_a_job_asks_for_the_time_of_its_part_under_all_seeds(minutes: float | None, samples: int) -> None:
    settings = Attribution(minutes=minutes, tokens_per_second=100).model_dump()
    cost = costs.attribute(settings, WINDOWS.model_dump(), 20, seeds=3)
    assert cost.tokens() == 3 * samples * 200
    assert cost.at_once == 8 * 200


def test_minutes_without_a_speed_are_refused() -> None:
    with pytest.raises(ValidationError, match="minutes needs tokens_per_second"):
        Attribution(minutes=10)


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three reference sets of different sizes and lengths."""
    folder, generator = tmp_path_factory.mktemp("sets"), torch.Generator().manual_seed(0)
    found = []
    for count in (5, 3, 4):
        rows = [
            {
                "id": f"{number}",
                "input_ids": torch.randint(2, 260, (6 + number,), generator=generator).tolist(),
                "target_start": 2,
            }
            for number in range(count)
        ]
        found.append(folder / f"set-{count}.jsonl")
        write_jsonl(found[-1], {"stage": "reference"}, rows)
    return found


@pytest.mark.parametrize("method", MEASURED)
def test_several_sets_in_one_job_give_the_bytes_of_a_job_each(
    method: str, tiny_model: Path, sets: list[Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    options = ["--method", method, "--model", tiny_model, "--corpus", "toxic", "--batch-size", 2, "--device", "cpu"]
    options += ["--threads", 1]
    for shard in ("0/1", "1/2"):
        alone = [tmp_path / f"alone-{seed}" for seed in range(3)]
        for seed, (path, output) in enumerate(zip(sets, alone, strict=True)):
            stage("attribute", *options, "--reference", path, "--seed", seed, "--shard", shard, "--output", output)
        together = [tmp_path / f"together-{seed}" for seed in range(3)]
        caplog.clear()
        stage("attribute", *options, "--reference", *sets, "--seed", 0, 1, 2, "--shard", shard, "--output", *together)
        assert [path.read_bytes() for path in together] == [path.read_bytes() for path in alone]
        assert "tokens, " in caplog.messages[-1]
        assert caplog.messages[-1].endswith("per second")


def test_as_many_seeds_and_outputs_as_sets(excise: Any, tiny_model: Path, sets: list[Path], tmp_path: Path) -> None:
    command = ["attribute", "--method", "lrp", "--model", tiny_model, "--reference", *sets[:2], "--output"]
    for more in ([tmp_path / "a"], [tmp_path / "a", tmp_path / "a", "--seed", 0, 1], [tmp_path / "a", tmp_path / "b"]):
        assert "as many seeds and outputs as reference sets" in excise(*command, *more, fails=True)
    assert not list(tmp_path.iterdir())
