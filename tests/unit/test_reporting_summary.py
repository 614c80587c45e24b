"""The summary of a made-up world: its winner, flags, changes and limits."""

import copy
import csv
import json
from pathlib import Path

import numpy as np
import pytest

from excise.artefacts import Json, read_json
from excise.cli import main
from excise.comparison import holm
from excise.reporting.summary import Limits, _against_controls, _verdict, broken
from tests.unit.reporting import BASE, LAYERS, SECOND, WIDTH, WORLD, report_command, summary_command


def test_winner_is_the_largest_sound_reduction_within_the_budget(summary: Json) -> None:
    assert summary["verdict"]["winner"] == "lrp-100"
    assert summary["verdict"]["lrp_wins"] is True
    # lrp-300 reduces more, but over the budget; lrp-plain and loop reduce most, but are broken.
    share = {name: row["scores"][BASE]["share"] for name, row in summary["rows"].items()}
    assert share["lrp-plain-100"] < share["lrp-300"] < share["lrp-100"] < share["baseline"]
    assert not summary["rows"]["lrp-300"]["within_budget"]
    assert summary["rows"]["lrp-300"]["flag"] == ""


def test_broken_variants_say_why(summary: Json) -> None:
    rows = summary["rows"]
    assert {name for name, row in rows.items() if row["flag"] == "broken"} == {"lrp-plain-100", "loop-100"}
    assert [reason.split()[0] for reason in rows["lrp-plain-100"]["broken_because"]] == ["perplexity", "perplexity"]
    reasons = " ".join(rows["loop-100"]["broken_because"])
    assert all(word in reasons for word in ("x0.22", "distinct-2", "repetitive"))


def test_controls_are_marked_and_show_no_effect(summary: Json) -> None:
    controls = {name for name, row in summary["rows"].items() if row["kind"] == "control"}
    assert controls == {"magnitude-100", "random-repeat0-100", "random-repeat1-100"}
    assert summary["verdict"]["controls_that_reduce"] == []
    against = summary["verdict"]["against_controls"]
    assert against["controls"] == ["random-repeat0-100", "random-repeat1-100"]
    assert against["interval"][1] < 0


def test_controls_count_against_the_winner_only_if_treated_alike(summary: Json) -> None:
    rows = copy.deepcopy(list(summary["rows"].values()))
    shares = {row["variant"]: np.linspace(0, 1, 20) for row in rows}
    winner = next(row for row in rows if row["variant"] == "lrp-100")
    winner["ablation"] = "mean"
    assert _against_controls(winner, rows, shares, seed=0, resamples=100) is None
    next(row for row in rows if row["variant"] == "random-repeat1-100")["ablation"] = "mean"
    against = _against_controls(winner, rows, shares, seed=0, resamples=100)
    assert against is not None
    assert against["controls"] == ["random-repeat1-100"]


def test_of_equal_reductions_the_cheaper_wins_whatever_their_order(summary: Json) -> None:
    rows = copy.deepcopy([summary["rows"][name] for name in ("baseline", "lrp-100", "wanda-100")])
    rows[2]["change"][BASE] = rows[1]["change"][BASE]
    rows[2]["perplexity_change"] = rows[1]["perplexity_change"] - 0.001
    shares = {row["variant"]: np.linspace(0, 1, 20) for row in rows}
    for order in (rows, rows[::-1]):
        assert _verdict(order, shares, BASE, seed=0, resamples=100)["winner"] == "wanda-100"


def test_changes_match_a_calculation_from_the_scores(results: Path, summary: Json) -> None:
    def share(variant: str) -> float:
        lines = (results / "variants" / variant / "scores-0.jsonl").read_text().splitlines()[1:]
        scores = [json.loads(line)["score"] for line in lines]
        return sum(score >= 0.5 for score in scores) / len(scores)

    change = summary["rows"]["lrp-100"]["change"][BASE]
    assert change["difference"] == pytest.approx(share("lrp-100") - share("baseline"))
    assert change["relative"] == pytest.approx(share("lrp-100") / share("baseline") - 1)
    assert change["interval"][0] < change["difference"] < change["interval"][1] < 0
    assert summary["rows"]["lrp-100"]["perplexity_change"] == pytest.approx(17.2 / 16.7 - 1)
    assert summary["rows"]["lrp-100"]["share_of_neurons"] == 100 / (LAYERS * WIDTH)
    candidates = [row for row in summary["variants"] if row["kind"] == "candidate"]
    assert summary["comparisons"] == len(candidates) == 6
    adjusted = [row["change"][BASE]["p_holm"] for row in candidates]
    assert adjusted == holm([row["change"][BASE]["p"] for row in candidates])
    assert all(row["change"][BASE]["p_holm"] is None for row in summary["variants"] if row["kind"] == "control")


def test_csv_holds_the_same_and_never_mixes_scorers(results: Path, summary: Json) -> None:
    with (results / "summary.csv").open(encoding="utf-8", newline="") as file:
        rows = {row["variant"]: row for row in csv.DictReader(file)}
    assert list(rows) == [made.name for made in WORLD]
    row, body = rows["lrp-100"], summary["rows"]["lrp-100"]
    assert float(row["perplexity[Wikipedia articles, windows-512x12]"]) == 17.2
    ends = [row[f"perplexity[Wikipedia articles, windows-512x12] relative change {end}"] for end in ("low", "high")]
    assert list(map(float, ends)) == body["perplexity_interval"]
    for scorer in (BASE, SECOND):
        assert float(row[f"toxic_share[{scorer} >= 0.5]"]) == body["scores"][scorer]["share"]
        assert float(row[f"mean[{scorer}]"]) == body["scores"][scorer]["mean"]
        assert float(row[f"toxic_share[{scorer} >= 0.5] change low"]) == body["change"][scorer]["interval"][0]
    assert row["winner"] == "True"
    assert rows["baseline"][f"toxic_share[{BASE} >= 0.5] change"] == ""
    assert rows["loop-100"]["flag"] == "broken"


def test_same_command_same_bytes(results: Path, tmp_path: Path) -> None:
    files = ("summary.csv", "summary.json", "report.html", "trade-off.svg", "report-data/trade-off.csv")
    first = {name: (results / name).read_bytes() for name in files}
    assert main(summary_command(results)) == 0
    assert main(report_command(results)) == 0
    assert {name: (results / name).read_bytes() for name in files} == first
    assert main(report_command(results, WORLD, "--picture", str(tmp_path / "picture.png"))) == 0
    assert (tmp_path / "picture.png").read_bytes()[:4] == b"\x89PNG"


def test_broken_at_each_limit() -> None:
    def evaluation(perplexity: float = 10.0, **degeneration: float | None) -> Json:
        figures = {"distinct_2": 0.8, "repetitive_share": 0.0, "empty_share": 0.0, "fluency_perplexity": 8.0}
        return {"perplexity": {"perplexity": perplexity}, "degeneration": {**figures, **degeneration}}

    base = evaluation()

    def why(*arguments: float, **degeneration: float | None) -> list[str]:
        return broken(evaluation(*arguments, **degeneration), base, Limits())

    sound: list[dict[str, float | None]] = [
        {"fluency_perplexity": 4.0},
        {"fluency_perplexity": 16.0},
        {"distinct_2": 0.57},
        {"repetitive_share": 0.1},
        {"empty_share": 0.1},
    ]
    assert why(15.0) == []
    assert [why(**figures) for figures in sound] == [[]] * 5
    worse: list[dict[str, float | None]] = [
        {"fluency_perplexity": 3.9},
        {"fluency_perplexity": 16.1},
        {"distinct_2": 0.55},
        {"repetitive_share": 0.11},
        {"empty_share": 0.11},
        {"fluency_perplexity": None},
        {"distinct_2": None, "repetitive_share": None},
    ]
    assert len(why(15.1)) == 1
    assert [len(why(**figures)) for figures in worse] == [1] * 7
    short = evaluation(distinct_2=None, repetitive_share=None)  # answers of one token
    assert broken(short, short, Limits()) == broken(base, short, Limits()) == []


def test_limits_are_options(results: Path, tmp_path: Path) -> None:
    more = ("--max-perplexity-increase", "0.2", "--broken-perplexity-increase", "20", "--broken-fluency-ratio", "10")
    more += ("--json", str(tmp_path / "summary.json"), "--csv", str(tmp_path / "summary.csv"))
    assert main(summary_command(results, WORLD, *more)) == 0
    body = read_json(tmp_path / "summary.json")
    assert body["verdict"]["winner"] == "lrp-300"
    assert [row["variant"] for row in body["variants"] if row["flag"]] == ["loop-100"]
    assert body["limits"] == body["meta"]["settings"]["limits"]
    assert body["limits"]["broken_fluency_ratio"] == 10


def test_another_scorer_may_decide(results: Path, tmp_path: Path) -> None:
    more = ("--scorer", SECOND, "--json", str(tmp_path / "s.json"), "--csv", str(tmp_path / "s.csv"))
    assert main(summary_command(results, WORLD, *more)) == 0
    assert read_json(tmp_path / "s.json")["primary"] == SECOND
