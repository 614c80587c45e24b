"""Sizes that compete on tuning prompts: the comparison of a made-up world, and which one is taken."""

import copy
from collections.abc import Callable
from pathlib import Path

import pytest

from excise.artefacts import Json, read_json, sha256_file
from excise.cli import main
from excise.errors import ExciseError
from excise.reporting.tuning import chosen
from tests.unit.reporting import BASE, WORLD, make_world, report_command, summary_command

CANDIDATES = WORLD[1:7]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = make_world(tmp_path_factory.mktemp("tuning"), WORLD[:7])
    assert main(summary_command(made, WORLD[:7])) == 0
    return made


def command(folder: Path, output: Path, candidates: list = CANDIDATES) -> list[object]:
    lists = [folder / "units" / f"{made.name}.json" for made in candidates]
    return [
        "choose",
        "--summary",
        folder / "summary.json",
        "--selections",
        *lists,
        "--name",
        "best",
        "--output",
        output,
    ]


def test_the_choice_is_the_best_list_within_the_budget_under_another_name(
    folder: Path, excise: Callable[..., str], tmp_path: Path
) -> None:
    said = excise(*command(folder, tmp_path / "best.json"))
    assert "best: lrp-100" in said
    best, origin = read_json(tmp_path / "best.json"), read_json(folder / "units/lrp-100.json")
    names = [made.name for made in CANDIDATES]
    assert best["chosen"] == {"variant": "lrp-100", "selection": "lrp", "candidates": names}
    assert best["name"] == "best"
    assert {key: best[key] for key in origin.keys() - {"meta", "name"}} == {
        key: origin[key] for key in origin.keys() - {"meta", "name"}
    }
    assert best["meta"]["model"] == origin["meta"]["model"]
    assert best["meta"]["settings"]["summary"] == sha256_file(folder / "summary.json")


def test_a_comparison_of_other_lists_is_refused(folder: Path, excise: Callable[..., str], tmp_path: Path) -> None:
    said = excise(*command(folder, tmp_path / "best.json", CANDIDATES[::-1]), fails=True)
    assert "compares other unit lists" in said
    assert not (tmp_path / "best.json").exists()


def test_the_report_shows_how_it_was_chosen(folder: Path, excise: Callable[..., str], tmp_path: Path) -> None:
    compared = tmp_path / "best <1>.json"
    compared.write_bytes((folder / "summary.json").read_bytes())
    excise(*report_command(folder, WORLD[:7], "--tunings", str(compared), "--output", str(tmp_path / "report.html")))
    page = (tmp_path / "report.html").read_text()
    section = page[page.index("<h2>How best &lt;1&gt; was chosen</h2>") : page.index("<h2>Is it still language?</h2>")]
    assert "best &lt;1&gt; is lrp-100: of 6 lists" in section
    assert "perplexity up by at most +5 %" in section
    assert "lrp-300" in section
    assert "<img" in section


@pytest.fixture
def rows(folder: Path) -> tuple[Json, dict[str, Json]]:
    body = copy.deepcopy(read_json(folder / "summary.json"))
    return body, {row["variant"]: row for row in body["variants"]}


def test_neither_cost_nor_damage_is_overlooked(rows: tuple[Json, dict[str, Json]]) -> None:
    """Most reduce more than the choice, but are broken or over the budget."""
    body, by_name = rows
    share = {name: row["scores"][BASE]["share"] for name, row in by_name.items()}
    assert [name for name in share if share[name] < share["lrp-100"]] == ["lrp-300", "lrp-plain-100", "loop-100"]
    by_name["lrp-300"]["within_budget"] = True
    assert chosen(body, where="x")["variant"] == "lrp-300"
    by_name["lrp-300"]["flag"] = "broken"
    assert chosen(body, where="x")["variant"] == "lrp-100"


def test_an_interval_across_zero_may_win_and_the_cheaper_of_equals_does(rows: tuple[Json, dict[str, Json]]) -> None:
    body, _ = rows
    for row in body["variants"][1:]:
        row["change"][BASE] |= {"difference": -0.01, "interval": [-0.05, 0.05], "reduces": False}
    assert chosen(body, where="x")["variant"] == "lrp-30"  # perplexity 16.9, the least
    for row in body["variants"][1:]:
        row["change"][BASE]["difference"] = 0.0
    with pytest.raises(ExciseError, match=r"x: no candidate lowers .* at most \+5 % .*lrp-30: .* smaller numbers"):
        chosen(body, where="x")
