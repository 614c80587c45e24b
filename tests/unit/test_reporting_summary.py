"""The summary of a made-up world: its winner, flags, changes and limits."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from excise.artefacts import read_json
from excise.cli import main
from excise.comparison import compare, holm
from excise.errors import ExciseError
from excise.goal import Budget, Goal
from excise.reporting.sheet import head
from excise.reporting.summarise import summarise
from excise.reporting.summary import Limits, Row, Summary, read_summary
from excise.reporting.verdict import FLUENCY, broken, judge
from excise.reporting.words import answer
from excise.tasks.files import read_measurements
from excise.tasks.measurement import About, Measured, Measurement, Metric
from tests.unit.reporting import (
    BASE,
    LAYERS,
    OTHER,
    PERPLEXITY,
    SHARE,
    WIDTH,
    WORLD,
    report_command,
    summary_command,
)

JUDGED = {"timed": False, "serial": False, "seed": 0, "resamples": 100}


def test_winner_is_the_largest_sound_reduction_within_the_budget(summary: Summary) -> None:
    assert summary.verdict.winner == "lrp-100"
    assert (summary.verdict.runner_up, summary.verdict.against_runner_up) == (None, None)
    # lrp-300 reduces more, but over the budget; lrp-plain and loop reduce most, but are broken.
    share = {name: row.cells[SHARE].figure or 0.0 for name, row in summary.rows.items()}
    assert share["lrp-plain-100"] < share["lrp-300"] < share["lrp-100"] < share["baseline"]
    assert summary.rows["lrp-300"].over == (PERPLEXITY,)
    assert summary.rows["lrp-300"].broken == ()


def test_broken_variants_say_why(summary: Summary) -> None:
    reasons = {name: [why.kind for why in row.broken] for name, row in summary.rows.items() if row.broken}
    assert reasons == {
        "lrp-plain-100": ["perplexity", "fluency"],
        "loop-100": ["fluency", "distinct_2", "repetitive_share"],
    }
    fluency = summary.rows["loop-100"].broken[0]
    assert (fluency.before, fluency.after, fluency.limit) == (pytest.approx(9.0), pytest.approx(2.0), 2.0)


def test_controls_are_marked_and_show_no_effect(summary: Summary) -> None:
    controls = {name for name, row in summary.rows.items() if row.about.kind == "control"}
    assert controls == {"magnitude-100", "random-repeat0-100", "random-repeat1-100"}
    assert summary.verdict.controls_that_improve == ()
    against = summary.verdict.against_controls
    assert against is not None
    assert against.variants == ("random-repeat0-100", "random-repeat1-100")
    assert against.change.interval is not None
    assert against.change.interval[1] < 0


def test_controls_count_against_the_winner_only_if_treated_alike(summary: Summary) -> None:
    rows = summary.rows
    values = {name: Metric.of(np.linspace(0, 1, 20)) for name in rows}

    def moved(name: str) -> Row:
        return replace(rows[name], about=replace(rows[name].about, ablation="mean"))

    rows["lrp-100"] = moved("lrp-100")
    assert judge(list(rows.values()), summary.goal, values, **JUDGED).against_controls is None
    rows["random-repeat1-100"] = moved("random-repeat1-100")
    against = judge(list(rows.values()), summary.goal, values, **JUDGED).against_controls
    assert against is not None
    assert against.variants == ("random-repeat1-100",)


def test_of_equal_reductions_the_cheaper_wins_whatever_their_order(summary: Summary) -> None:
    first, second = summary.rows["lrp-100"], summary.rows["wanda-100"]
    price = first.cells[PERPLEXITY].change
    assert price is not None
    assert price.relative is not None
    cheaper = replace(second.cells[PERPLEXITY], change=replace(price, relative=price.relative - 0.001))
    second = replace(second, cells={**second.cells, SHARE: first.cells[SHARE], PERPLEXITY: cheaper})
    values = {row.variant: Metric.of(np.linspace(0, 1, 20)) for row in (first, second)}
    for order in ([first, second], [second, first]):
        assert judge(order, summary.goal, values, **JUDGED).winner == "wanda-100"


def test_changes_match_a_calculation_from_the_scores(results: Path, summary: Summary) -> None:
    def share(variant: str) -> float:
        lines = (results / "variants" / variant / "scores-0.jsonl").read_text().splitlines()[1:]
        scores = [json.loads(line)["score"] for line in lines]
        return sum(score >= 0.5 for score in scores) / len(scores)

    row = summary.rows["lrp-100"]
    change = row.change(SHARE)
    assert change.difference == pytest.approx(share("lrp-100") - share("baseline"))
    assert change.relative == pytest.approx(share("lrp-100") / share("baseline") - 1)
    assert change.interval is not None
    assert change.interval[0] < change.difference < change.interval[1] < 0
    assert row.change(PERPLEXITY).relative == pytest.approx(17.2 / 16.7 - 1)
    assert row.change(PERPLEXITY).way == "serial"
    assert row.about.share == 100 / (LAYERS * WIDTH)
    candidates = [row for row in summary.variants if row.about.kind == "candidate"]
    assert summary.comparisons == len(candidates) == 6
    for address in (SHARE, OTHER, PERPLEXITY):
        adjusted = [row.cells[address].p_holm for row in candidates]
        assert adjusted == holm([row.change(address).p or 0.0 for row in candidates])
    assert all(row.cells[SHARE].p_holm is None for row in summary.variants if row.about.kind != "candidate")
    before, after = (
        read_measurements(results / "variants" / name / "measurements.json").measurements[0].metrics["share"]
        for name in ("baseline", "lrp-100")
    )
    assert change == compare(before, after, seed=0, resamples=1000, comparisons=6)


def test_csv_holds_the_same_and_never_mixes_scorers(results: Path, summary: Summary) -> None:
    with (results / "summary.csv").open(encoding="utf-8", newline="") as file:
        rows = {row["variant"]: row for row in csv.DictReader(file)}
    assert list(rows) == [made.name for made in WORLD]
    row, body = rows["lrp-100"], summary.rows["lrp-100"]
    name = "wikipedia.perplexity [perplexity (Wikipedia articles, windows-512x12)]"
    assert float(row[name]) == pytest.approx(17.2)
    ends = [row[f"{name} relative change {end}"] for end in ("low", "high")]
    assert tuple(map(float, ends)) == body.change(PERPLEXITY).relative_interval
    assert head(summary.target) == f"{SHARE} [toxic share ({BASE} >= 0.5)]"
    for address in (SHARE, OTHER):
        column = head(summary.column(address))
        assert float(row[column]) == body.cells[address].figure
        assert float(row[f"{column} change low"]) == (body.change(address).interval or ())[0]
    assert float(row[f"toxicity.mean [mean score ({BASE})]"]) == body.cells["toxicity.mean"].figure
    assert row["winner"] == "True"
    assert rows["baseline"][f"{head(summary.target)} change"] == ""
    assert rows["loop-100"]["flag"] == "broken"


def test_same_command_same_bytes_in_whatever_order_the_files_come(results: Path, tmp_path: Path) -> None:
    files = ("summary.csv", "summary.json", "report.html", "trade-off.svg", "report-data/trade-off.csv")
    first = {name: (results / name).read_bytes() for name in files}
    assert main(summary_command(results)) == 0
    assert main(report_command(results)) == 0
    assert {name: (results / name).read_bytes() for name in files} == first
    assert main(report_command(results, WORLD, "--picture", str(tmp_path / "picture.png"))) == 0
    assert (tmp_path / "picture.png").read_bytes()[:4] == b"\x89PNG"
    more = ("--json", str(tmp_path / "summary.json"), "--csv", str(tmp_path / "summary.csv"))
    assert main(summary_command(results, [*WORLD[1:], WORLD[0]], *more)) == 0
    assert read_summary(tmp_path / "summary.json").variants == read_summary(results / "summary.json").variants


def test_broken_at_each_limit() -> None:
    keys = {"distinct_2": 0.8, "repetitive_share": 0.0, "empty_share": 0.0}

    def figures(perplexity: float = 10.0, **changes: float | None) -> dict[str, float | None]:
        found: dict[str, float | None] = {"text.perplexity": perplexity, FLUENCY: changes.pop("fluency", 8.0)}
        return found | {f"language.{key}": changes.get(key, value) for key, value in keys.items()}

    base = figures()

    def why(*arguments: float, **changes: float | None) -> int:
        return len(broken(figures(*arguments, **changes), base, Limits(), ["text.perplexity"]))

    sound: list[dict[str, float | None]] = [
        {"fluency": 4.0},
        {"fluency": 16.0},
        {"distinct_2": 0.57},
        {"repetitive_share": 0.1},
        {"empty_share": 0.1},
    ]
    assert why(15.0) == 0
    assert [why(**changes) for changes in sound] == [0] * 5
    worse: list[dict[str, float | None]] = [
        {"fluency": 3.9},
        {"fluency": 16.1},
        {"distinct_2": 0.55},
        {"repetitive_share": 0.11},
        {"empty_share": 0.11},
        {"fluency": None},
        {"distinct_2": None, "repetitive_share": None},
    ]
    assert why(15.1) == 1
    assert [why(**changes) for changes in worse] == [1] * 7
    short = figures(distinct_2=None, repetitive_share=None)  # answers of one token
    assert broken(short, short, Limits(), []) == broken(base, short, Limits(), []) == ()
    assert broken({"text.perplexity": 99.0}, {"text.perplexity": 1.0}, Limits(), []) == ()  # no budget, no text


def test_limits_are_options(results: Path, tmp_path: Path) -> None:
    more = ("--max-perplexity-increase", "0.2", "--broken-perplexity-increase", "20", "--broken-fluency-ratio", "10")
    more += ("--json", str(tmp_path / "summary.json"), "--csv", str(tmp_path / "summary.csv"))
    assert main(summary_command(results, WORLD, *more)) == 0
    body = read_json(tmp_path / "summary.json")
    assert body["verdict"]["winner"] == "lrp-300"
    assert [row["variant"] for row in body["variants"] if row["broken"]] == ["loop-100"]
    assert body["limits"] == body["meta"]["settings"]["limits"]
    assert body["limits"]["broken_fluency_ratio"] == 10


def test_another_metric_may_decide(results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    more = ("--json", str(tmp_path / "s.json"), "--csv", str(tmp_path / "s.csv"))
    assert main(summary_command(results, WORLD, "--lower", OTHER, "--within", f"{PERPLEXITY}=+2 %", *more)) == 0
    found = read_summary(tmp_path / "s.json")
    assert found.goal == Goal(metric=OTHER, direction="lower", within={PERPLEXITY: Budget(limit=0.02)})
    assert found.verdict.winner == "lrp-30"  # lrp-100 costs 3 %
    assert main(summary_command(results, WORLD, "--raise", SHARE, *more)) == 0
    assert read_summary(tmp_path / "s.json").verdict.winner is None
    assert main(summary_command(results, WORLD, "--lower", "toxicity.shar", *more)) == 1
    assert "goal: unknown metric 'toxicity.shar'. Did you mean 'toxicity.share'?" in capsys.readouterr().err


def text(name: str, variant: str, change: float, *, seed: int = 0) -> Measurement:
    """Losses of 24 windows of a text."""
    level = np.random.default_rng(seed).normal(2.8, 0.3, 24)
    noise = np.random.default_rng([seed, *variant.encode()]).normal(0, 0.01, 24)
    metric = Metric.of(
        511 * (level + np.log1p(change) + noise), np.full(24, 511.0), aggregate="perplexity", direction="lower"
    )
    items = [str(n) for n in range(24)]
    return Measurement(
        task="perplexity",
        name=name,
        label=name.upper(),
        item="window",
        items=items,
        serial=True,
        metrics={"perplexity": metric},
    )


def compressed(variant: str, change: float, *more: Measurement, kind: str = "candidate") -> Measured:
    about = About(kind=kind, method=None if kind == "baseline" else "wanda", size=None if kind == "baseline" else 0.5)
    texts = [text("wikitext2", variant, change), text("c4", variant, 2 * change, seed=1)]
    return Measured(variant=variant, measurements=[*texts, *more], about=about, meta={"model": {"id": "m"}})


def test_compression_has_perplexity_alone_on_several_texts() -> None:
    found = summarise([compressed("wanda", 0.6), compressed("baseline", 0, kind="baseline"), compressed("alps", 0.3)])
    assert found.goal == Goal(metric="wikitext2.perplexity", direction="lower", within={})
    assert [column.address for column in found.columns] == ["wikitext2.perplexity", "c4.perplexity"]
    assert not any(row.broken or row.over for row in found.variants)
    assert found.verdict.winner is None  # both cost perplexity
    assert found.verdict.closest == "alps"
    (peers,) = found.verdict.peers
    assert peers.variants == ("alps", "wanda")
    assert peers.change.relative == pytest.approx(1.3 / 1.6 - 1, abs=0.01)
    assert peers.change.improves("lower")
    assert "With 50 % of the weights pruned alps is best of 2: perplexity on WIKITEXT2" in answer(found)
    within = Goal(metric="wikitext2.perplexity", direction="lower", within={"c4.perplexity": Budget(limit=1.0)})
    found = summarise(
        [compressed("baseline", 0, kind="baseline"), compressed("wanda", 0.6), compressed("alps", 0.3)], goal=within
    )
    assert found.rows["wanda"].over == ("c4.perplexity",)
    assert found.rows["alps"].broken[0].kind == "perplexity"


def queries(values: list[float]) -> Measurement:
    metric = Metric.of(values, direction="higher", title="nDCG@10")
    return Measurement(
        task="retrieval",
        name="nfcorpus",
        item="query",
        items=[f"q{n}" for n in range(len(values))],
        metrics={"ndcg@10": metric},
    )


def test_a_metric_may_be_raised_without_any_text() -> None:
    generator = np.random.default_rng(0)
    before = generator.uniform(0.2, 0.8, 80)
    files = [
        Measured(variant="dense", measurements=[queries(before.tolist())], about=About(kind="baseline")),
        Measured(variant="cut", measurements=[queries((before - 0.05).tolist())]),
        Measured(variant="tuned", measurements=[queries((before + generator.normal(0.05, 0.02, 80)).tolist())]),
    ]
    found = summarise(files)
    assert found.goal == Goal(metric="nfcorpus.ndcg@10", direction="raise", within={})
    assert found.verdict.winner == "tuned"
    assert summarise(files[:1]).verdict.closest is None


def test_what_cannot_be_a_summary_is_refused() -> None:
    base = compressed("baseline", 0, kind="baseline")
    with pytest.raises(ExciseError, match=r"exactly one variant must be the baseline.* found none"):
        summarise([compressed("wanda", 0.1)])
    with pytest.raises(ExciseError, match="found baseline, other"):
        summarise([base, compressed("other", 0, kind="baseline")])
    other = replace(compressed("wanda", 0.1), meta={"model": {"id": "another"}})
    with pytest.raises(ExciseError, match="the model differs"):
        summarise([base, other])
    base, made = (
        replace(
            one, meta={"model": {"id": one.variant, "fingerprint": one.variant, "base": {"fingerprint": "baseline"}}}
        )
        for one in (base, compressed("folder", 0.1))
    )
    assert summarise([base, made]).verdict.closest == "folder"
