"""The page: what it consists of and what it says of a made-up world."""

import copy
import json
import re
from pathlib import Path

import pytest

from excise.artefacts import Json, read_json
from excise.cli import main
from excise.errors import ExciseError
from excise.reporting.samples import pick
from excise.reporting.words import answer, confidence, method, treatment
from tests.unit.reporting import (
    BASE,
    DRAWS,
    SECOND,
    SETTINGS,
    WORLD,
    Made,
    Page,
    make_world,
    report_command,
    summary_command,
)


def test_report_is_self_contained_escaped_and_hides_what_the_model_wrote(results: Path) -> None:
    html = (results / "report.html").read_text(encoding="utf-8")
    page = Page(html)
    assert "script" not in page.tags
    assert page.links
    assert all(link.startswith("data:image/svg+xml;base64,") for link in page.links)
    assert page.tags.count("figure") == page.tags.count("figcaption") == page.tags.count("img") == 7
    assert not re.search(r"@import|url\(", html)
    visible = " ".join(text for text, hidden in page.text if not hidden)
    hidden = " ".join(text for text, hidden in page.text if hidden)
    assert "darn" in hidden
    assert "alert(1)" in hidden
    assert "darn" not in visible
    assert "alert(1)" not in visible


def test_report_says_what_how_sure_and_what_it_cost(results: Path, summary: Json) -> None:
    visible = " ".join(text for text, hidden in Page((results / "report.html").read_text()).text if not hidden)
    change = summary["rows"]["lrp-100"]["change"][BASE]
    minus = "\N{MINUS SIGN}"
    low, high = (f"{100 * edge:+.1f}".replace("-", minus) for edge in change["interval"])
    assert f"95 % interval {low} to {high}" in visible
    assert "Pruning 100 neurons (1.67 % of all) chosen by lrp" in visible
    low, high = (f"{100 * end:+.1f}" for end in summary["rows"]["lrp-100"]["perplexity_interval"])
    assert float(low) < 3.0 < float(high)
    assert f"from 16.70 to 17.20 (+3.0 %, 95 % interval {low} to {high} %)" in visible
    assert f"window by window (12 of them): +3.0 %, 95 % interval {low} to {high} %. The interval " in visible
    assert "LRP won" in visible
    assert "no change is established" not in visible
    assert re.search(r"Corrected for the 6 candidates compared it holds \(p ", visible)
    weak = copy.deepcopy(summary)
    for row in weak["variants"]:
        for change in row["change"].values():
            change["p_holm"] = 0.05
    assert answer(weak).endswith("candidates compared it is not established (p = 0.050).")
    assert f"By {SECOND}, which did not decide" in visible
    assert f"{BASE} also picked the references" in visible
    assert "None of the 3 controls shows a reduction" in visible
    assert "lrp-plain-100 is broken, so its share of toxic continuations proves nothing" in visible
    assert "ab" * 32 in visible
    assert "torch 2.13.0" in visible
    assert "1,500" in visible


def test_another_behaviour_goes_by_its_own_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    world = [WORLD[0], *WORLD[2:5]]
    words = ("--noun", "repetition", "--adjective", "repetitive")
    make_world(tmp_path, world, scorers=("repetition",), words=words)
    settings = {**SETTINGS, "generations": {"greedy": True, "num_generations": 1, "scorer": "repetition"}}
    settings |= {"prompts": {"label": "openings"}, "evaluation": {"num_generations": DRAWS, "scorers": ["repetition"]}}
    (tmp_path / "settings.json").write_text(json.dumps(settings), encoding="utf-8")
    assert main(summary_command(tmp_path, world)) == 0
    assert main(report_command(tmp_path, world)) == 0
    assert main(["show", str(tmp_path / "summary.json")]) == 0
    visible = " ".join(text for text, _ in Page((tmp_path / "report.html").read_text()).text)
    drawn = (tmp_path / "trade-off.svg").read_text()
    tables = [path.read_text() for path in (tmp_path / "report-data").glob("*.csv")]
    for text in (visible, drawn, capsys.readouterr().out, (tmp_path / "summary.csv").read_text(), *tables):
        assert "toxi" not in text.lower()
    assert "took the share of repetitive continuations from" in visible
    assert "lrp-plain-100 is broken, so its share of repetitive continuations proves nothing" in visible
    assert "answered each prompt of the first part once, always with the most probable token" in visible
    assert "repetitive_share[repetition >= 0.5] change low" in (tmp_path / "summary.csv").read_text()


@pytest.mark.parametrize(
    ("scale", "ablation", "words"),
    [
        (0.0, "zero", "Pruning 30 neurons"),
        (0.0, "mean", "Holding at their mean 30 neurons"),
        (-1.0, "zero", "Reversing 30 neurons"),
        (-1.0, "mean", "Reversing about their mean 30 neurons"),
        (0.5, "zero", "Scaling by 0.5 the output of 30 neurons"),
        ("per row", "zero", "Scaling, each by its own number, the output of 30 neurons"),
    ],
)
def test_what_was_done_to_the_neurons_is_said(scale: float | str, ablation: str, words: str) -> None:
    row = {"scale": scale, "ablation": ablation, "neurons": 30, "share_of_neurons": 0.005}
    assert treatment(row) == f"{words} (0.50 % of all)"


def outcome(folder: Path, world: list[Made], *more: str, scorers: tuple[str, ...] = (BASE,)) -> tuple[Json, str]:
    """Verdict and visible text of another world."""
    make_world(folder, world, scorers=scorers)
    assert main(summary_command(folder, world, *more)) == 0
    assert main(report_command(folder, world)) == 0
    text = " ".join(text for text, _ in Page((folder / "report.html").read_text()).text)
    verdict: Json = read_json(folder / "summary.json")["verdict"]
    return verdict, text


def test_report_says_plainly_that_lrp_does_not_win(tmp_path: Path) -> None:
    world = [
        Made("baseline"),
        Made("lrp-100", "lrp", "lrp", 100, -0.4, 17.2, layer=5),
        Made("aura-100", "aura", "aura", 100, -0.9, 17.0, layer=3),
    ]
    verdict, text = outcome(tmp_path, world)
    assert (verdict["winner"], verdict["lrp_wins"]) == ("aura-100", False)
    assert "LRP did not win, aura-100 (aura) did" in text
    assert "There are no controls in this table" in text
    assert "Toxicity was judged by one scorer only" in text


def test_report_says_plainly_that_nobody_wins(tmp_path: Path) -> None:
    world = [
        Made("baseline"),
        Made("lrp-100", "lrp", "lrp", 100, 0.0, 17.2, layer=5),
        Made("random-100", "random", "random", 100, -0.9, 17.0),
    ]
    verdict, text = outcome(tmp_path, world)
    assert (verdict["winner"], verdict["closest"]) == (None, "lrp-100")
    assert verdict["controls_that_reduce"] == ["random-100"]
    assert "No variant reduced the share of toxic continuations reliably" in text
    assert "LRP did not win: nobody did." in text
    assert "so no change is established. lrp-100 was the only candidate" in text


def test_report_when_everything_is_broken(tmp_path: Path) -> None:
    world = [Made("baseline"), Made("lrp-100", "lrp", "lrp", 100, -1.0, 400.0, layer=5)]
    verdict, text = outcome(tmp_path, world)
    assert (verdict["winner"], verdict["closest"]) == (None, None)
    assert "No result" in text


def test_one_control_and_few_windows_are_said_as_what_they_are(tmp_path: Path) -> None:
    world = [WORLD[0], WORLD[2], Made("random-100", "random", "random", 100, 0.0, 16.8)]
    verdict, text = outcome(tmp_path, world)
    assert verdict["winner"] == "lrp-100"
    assert "The only control, random-100, shows no reduction whose interval lies below zero." in text
    assert "Against the random draw of as many neurons, treated alike (random-100): " in text
    assert "corrected for 1 candidate (Holm)" in text
    assert "with caution" not in text
    summary = read_json(tmp_path / "summary.json")
    summary["perplexity"]["windows"] = 6
    summary["verdict"]["controls_that_reduce"] = ["random-100"]
    said = " ".join(confidence(summary, SETTINGS))
    assert "6 windows are few: take this interval with caution." in said
    assert "The only control, random-100, also shows a reduction" in said


def test_the_first_sentence_is_as_sure_as_the_figures(summary: Json) -> None:
    made = copy.deepcopy({key: value for key, value in summary.items() if key != "rows"})
    made["limits"]["max_perplexity_increase"] = 0.025
    row = next(row for row in made["variants"] if row["variant"] == "lrp-100")
    row["change"][BASE]["p_holm"] = 0.0612
    assert "Corrected for the 6 candidates compared it is not established (p = 0.061)." in answer(made)
    made["comparisons"] = 1
    assert "By the permutation test it is not established (p = 0.061)." in answer(made)
    made["verdict"] |= {"winner": None, "closest": "lrp-100"}
    assert "a perplexity increase of 2.5 %. The largest reduction of one that is not broken, lrp-100" in answer(made)
    row["change"][BASE]["difference"] = 0.01
    assert "The least rise, for none fell, of one that is not broken, lrp-100, went from" in answer(made)
    assert "would have been found with 80 % probability, by one test without" in " ".join(confidence(made, SETTINGS))
    row["change"][BASE]["detectable"] = 0.0  # all differences are equal: no spread, no such statement
    assert "80 %" not in " ".join(confidence(made, SETTINGS))


def test_reference_sets_go_by_their_labels_and_an_onset_is_told_from_an_answer(summary: Json) -> None:
    answers = {"kind": "generations", "at_least": 0.5, "count": 93}
    references = {
        "onset": {**answers, "span": "onset"},
        "toxic": {**answers, "span": "generation"},
        "c4": {"kind": "windows", "text": "c4", "windows": 8, "seqlen": 128},
    }
    steps = method(summary, {**SETTINGS, "references": references, "texts": {"c4": {"label": "C4 sample"}}})
    same = "answers of the model scored at least 0.5, at most 93 per seed"
    turn = "of each only the token at which it turned toxic is explained"
    assert f"Reference set onset: {same}; {turn}." in steps
    assert f"Reference set toxic: {same}." in steps
    assert "Reference set c4: 8 windows of 128 tokens of C4 sample per seed." in steps


def test_letters_of_all_plots_are_equally_large(results: Path) -> None:
    html = (results / "report.html").read_text(encoding="utf-8")
    shown = [float(width) for width in re.findall(r"--drawn: ([\d.]+)rem", html)]
    assert len(shown) == 7
    assert shown.pop() == pytest.approx(32.5, abs=1)  # the overlap of six lists
    assert shown == pytest.approx([54] * 6, abs=1)


def test_samples_are_drawn_and_extreme() -> None:
    def rows(shift: dict[int, float]) -> list[Json]:
        return [
            {"id": i, "draw": draw, "prompt": f"p{i}", "completion": "x", "score": 0.5 + shift.get(i, 0.0)}
            for i in range(30)
            for draw in range(5)
        ]

    picked = pick(rows({}), rows({3: -0.4, 8: -0.2, 9: 0.3}), count=12, seed=0)
    groups: dict[str, list[int]] = {}
    for sample in picked:
        groups.setdefault(sample["group"], []).append(sample["id"])
        assert len(sample["before"]) == len(sample["after"]) == 3
    assert (groups["Largest falls"], groups["Largest rises"]) == ([3, 8], [9])
    assert len(groups["Drawn at random"]) == 6
    assert not {3, 8, 9} & set(groups["Drawn at random"])
    assert pick(rows({}), rows({}), count=12, seed=0) != pick(rows({}), rows({}), count=12, seed=1)
    with pytest.raises(ExciseError, match="same prompts"):
        pick(rows({}), rows({})[5:], count=4, seed=0)
