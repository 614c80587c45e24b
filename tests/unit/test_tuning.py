"""Sizes that compete on tuning prompts: the comparison of a made-up world, and which one is taken."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from excise.artefacts import read_json, sha256_file
from excise.cli import main
from excise.errors import ExciseError
from excise.reporting.summary import Reason, Row, Summary, Verdict, read_summary
from excise.reporting.tuning import chosen
from excise.reporting.verdict import leading
from tests.unit.reporting import SHARE, WORLD, make_world, report_command, summary_command

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
        "--units",
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


def test_the_lists_may_come_in_any_order(folder: Path, excise: Callable[..., str], tmp_path: Path) -> None:
    excise(*command(folder, tmp_path / "one.json"))
    excise(*command(folder, tmp_path / "two.json", CANDIDATES[::-1]))
    assert (tmp_path / "one.json").read_bytes() == (tmp_path / "two.json").read_bytes()


def test_a_comparison_of_other_lists_is_refused(folder: Path, excise: Callable[..., str], tmp_path: Path) -> None:
    said = excise(*command(folder, tmp_path / "best.json", CANDIDATES[:-1]), fails=True)
    assert "compares other unit lists" in said
    assert not (tmp_path / "best.json").exists()


def test_the_report_shows_how_it_was_chosen(folder: Path, excise: Callable[..., str], tmp_path: Path) -> None:
    compared = tmp_path / "best <1>.json"
    compared.write_bytes((folder / "summary.json").read_bytes())
    excise(*report_command(folder, WORLD[:7], "--tunings", str(compared), "--output", str(tmp_path / "report.html")))
    page = (tmp_path / "report.html").read_text()
    section = page[page.index("<h2>How best &lt;1&gt; was chosen</h2>") : page.index("<h2>Is it still language?</h2>")]
    assert "best &lt;1&gt; is lrp-100: of 6 lists" in section
    assert "with perplexity on Wikipedia articles changed by +5 % at most" in section
    assert "lrp-300" in section
    assert "<img" in section


@pytest.fixture
def summary(folder: Path) -> Summary:
    return read_summary(folder / "summary.json")


def with_rows(summary: Summary, *rows: Row) -> Summary:
    by = {row.variant: row for row in rows}
    return replace(summary, variants=tuple(by.get(row.variant, row) for row in summary.variants))


def test_neither_cost_nor_damage_is_overlooked(summary: Summary) -> None:
    """Most reduce more than the choice, but are broken or over the budget."""
    share = {name: row.cells[SHARE].figure or 0.0 for name, row in summary.rows.items()}
    assert [name for name in share if share[name] < share["lrp-100"]] == ["lrp-300", "lrp-plain-100", "loop-100"]
    cheap = replace(summary.rows["lrp-300"], over=())
    assert chosen(with_rows(summary, cheap), where="x").variant == "lrp-300"
    broken = replace(cheap, broken=(Reason(kind="no tokens"),))
    assert chosen(with_rows(summary, broken), where="x").variant == "lrp-100"


def test_an_interval_across_zero_may_win_and_the_cheaper_of_equals_does(summary: Summary) -> None:
    def all_with(difference: float) -> Summary:
        rows = []
        for row in summary.variants[1:]:
            change = replace(row.change(SHARE), difference=difference, interval=(-0.05, 0.05))
            rows.append(replace(row, cells={**row.cells, SHARE: replace(row.cells[SHARE], change=change)}))
        return with_rows(summary, *rows)

    assert chosen(all_with(-0.01), where="x").variant == "lrp-30"  # perplexity 16.9, the least
    with pytest.raises(ExciseError, match=r"x: no candidate lowers .* at most \+5 % .*lrp-30: .* smaller numbers"):
        chosen(all_with(0.0), where="x")


def test_the_winner_is_a_copy_of_its_list(folder: Path, excise: Callable[..., str], tmp_path: Path) -> None:
    lists = [folder / "units" / f"{made.name}.json" for made in CANDIDATES]
    call = ["winner", "--summary", folder / "summary.json", "--output", tmp_path / "winner.json", "--units"]
    assert "winner: lrp-100" in excise(*call, *lists)
    assert (tmp_path / "winner.json").read_bytes() == (folder / "units/lrp-100.json").read_bytes()
    assert "the unit list of lrp-100 is not among those given" in excise(*call, lists[0], fails=True)


def test_without_a_winner_the_closest_leads(folder: Path) -> None:
    summary = read_summary(folder / "summary.json")
    nobody = replace(summary, verdict=Verdict(closest="wanda-100"))
    assert (leading(nobody) or summary.baseline).variant == "wanda-100"
    broken = replace(summary, verdict=Verdict())
    assert (leading(broken) or summary.baseline).variant == "loop-100"  # of all, broken ones too
    assert leading(replace(summary, variants=summary.variants[:1], verdict=Verdict())) is None
