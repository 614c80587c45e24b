"""Two runs of one experiment: which conclusions survive, and who is told apart from the winner."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from excise.cli import main
from excise.errors import ExciseError
from excise.reporting.runs import agreement, between, not_told_apart
from excise.reporting.steps import method
from excise.stages.compare_runs import read, told
from tests.unit.reporting import WORLD, Made, make_world, summary_command

KEPT = [made for made in WORLD if made.name not in ("lrp-30", "random-repeat1-100")]


def a_run(folder: Path, world: list[Made]) -> Path:
    assert main(summary_command(make_world(folder, world), world)) == 0
    return folder


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return a_run(tmp_path_factory.mktemp("first"), KEPT)


@pytest.fixture(scope="module")
def second(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """On a machine where wanda does as lrp does on the first, and lrp does nothing."""
    effects = {"lrp-100": 0.0, "wanda-100": -0.65}
    world = [replace(made, effect=effects.get(made.name, made.effect)) for made in KEPT]
    return a_run(tmp_path_factory.mktemp("second"), world)


def test_a_run_agrees_with_itself(first: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare-runs", str(first), str(first)]) == 0
    said = capsys.readouterr().out
    assert "The conclusions agree." in said
    assert "first run: lrp-100 wins, told apart from all others that could" in said
    assert "lrp-plain-100" in said
    assert "DIFFERS" not in said


def test_a_difference_is_named_and_ends_with_an_error(first: Path, second: Path, excise: Callable[..., str]) -> None:
    said = excise("compare-runs", first, second, fails=True)
    assert "different conclusions" in said
    runs = [read(first), read(second)]
    found = agreement(*runs)
    assert found.winners == ("lrp-100", "wanda-100")
    assert found.conclusions["lrp-100"] == ("better", "open")
    assert found.conclusions["lrp-plain-100"] == ("broken", "broken")
    assert found.conclusions["lrp-300"][0] == "better, over budget"
    assert "lrp-100" in found.differing
    assert not found.one_winner
    assert "DIFFERS: better | open" in told(found, runs)


def test_winners_that_neither_run_tells_apart_are_one(first: Path) -> None:
    run = read(first)
    found = agreement(run, run)
    swapped = replace(found, winners=("a", "b"), tied=(("b",), ("a", "c")))
    assert swapped.one_winner
    assert swapped.holds
    assert not replace(swapped, tied=((), ("a",))).one_winner


def test_told_apart_is_whether_the_paired_interval_leaves_zero_out(first: Path) -> None:
    run = read(first)
    winner, *others = run.summary.verdict.eligible
    inside = []
    for name in others:
        low, high = between(run, winner, name).interval or (0.0, 0.0)
        inside += [name] if low <= 0 <= high else []
    assert not_told_apart(run) == tuple(inside)


def test_runs_of_two_experiments_are_refused(first: Path, tmp_path: Path) -> None:
    other = a_run(tmp_path / "other", KEPT[:3])
    with pytest.raises(ExciseError, match="not two runs of one experiment: variants differs"):
        agreement(read(first), read(other))


def test_reference_sets_are_told_as_they_were_drawn_and_only_those_looked_at(first: Path) -> None:
    everything = {"kind": "generations", "at_least": 0.5, "count": "all", "span": "onset"}
    sets = {"onset": everything, "dealt": everything | {"permuted": True}, "unused": everything}
    methods = {"a": ("lrp", "onset"), "b": ("trust-region", "dealt"), "c": ("random", "unused")}
    variants = {name: {"method": found_by, "target": target} for name, (found_by, target) in methods.items()}
    said = " ".join(method(read(first).summary, {"references": sets, "variants": variants}))
    assert "Reference set onset: answers of the model scored at least 0.5, all of each seed; of each only" in said
    assert "Reference set dealt: answers of the model scored at least 0.5, after the scores were dealt anew" in said
    assert "unused" not in said
