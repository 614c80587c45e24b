"""The page: what it consists of and what it says of a made-up world."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from excise.artefacts import Json, read_json
from excise.cli import main
from excise.errors import ExciseError
from excise.goal import Budget, Goal
from excise.reporting.confidence import confidence
from excise.reporting.figures import changes
from excise.reporting.page import page
from excise.reporting.samples import pick
from excise.reporting.steps import method
from excise.reporting.summarise import summarise
from excise.reporting.summary import Summary, read_summary
from excise.reporting.words import answer, treatment
from excise.stages.show import table
from excise.tasks.measurement import About, Measured, Measurement, Metric
from tests.unit.reporting import (
    BASE,
    DRAWS,
    PERPLEXITY,
    SECOND,
    SETTINGS,
    SHARE,
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


def test_report_says_what_how_sure_and_what_it_cost(results: Path, summary: Summary) -> None:
    visible = " ".join(text for text, hidden in Page((results / "report.html").read_text()).text if not hidden)
    row = summary.rows["lrp-100"]
    minus = "\N{MINUS SIGN}"
    low, high = (f"{100 * edge:+.1f}".replace("-", minus) for edge in row.change(SHARE).interval or ())
    assert f"95 % interval {low} to {high}" in visible
    assert "Pruning 100 neurons (1.67 % of all) chosen by lrp" in visible
    low, high = (f"{100 * end:+.1f}" for end in row.change(PERPLEXITY).relative_interval or ())
    assert float(low) < 3.0 < float(high)
    assert f"from 16.70 to 17.20 (+3.0 %, 95 % interval {low} to {high} %)" in visible
    assert f"window by window (12 of them): +3.0 %, 95 % interval {low} to {high} %. The interval " in visible
    assert "No variant of another method reduced" in visible
    assert "no change is established" not in visible
    assert re.search(r"Corrected for the 6 candidates compared it holds \(p ", visible)
    weak = changed(summary, "lrp-100", SHARE, p_holm=0.05)
    assert "candidates compared it is not established (p = 0.050)." in answer(weak)
    assert f"By {SECOND}, which did not decide" in visible
    assert f"{BASE} also picked the references" in visible
    assert "None of the 3 controls shows a reduction" in visible
    assert "lrp-plain-100 is broken, so its share of toxic continuations proves nothing" in visible
    assert "ab" * 32 in visible
    assert "torch 2.13.0" in visible
    assert "1,500" in visible


def changed(summary: Summary, variant: str, address: str, **values: Any) -> Summary:
    """The summary with a cell, or its change, made different."""
    row = summary.rows[variant]
    cell = row.cells[address]
    assert cell.change is not None
    own = {key: values.pop(key) for key in list(values) if key == "p_holm"}
    cell = replace(cell, **own, change=replace(cell.change, **values))
    row = replace(row, cells={**row.cells, address: cell})
    return replace(summary, variants=tuple(row if one.variant == variant else one for one in summary.variants))


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
    assert (
        "repetition.share [repetitive share (repetition >= 0.5)] change low" in (tmp_path / "summary.csv").read_text()
    )


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
    about = About(method="lrp", unit="neuron", size=30, share=0.005, scale=scale, ablation=ablation)
    assert treatment(about) == f"{words} (0.50 % of all)"


def test_what_was_done_to_weights_is_said() -> None:
    assert treatment(About(method="wanda", unit="weight", size=0.5)) == "Wanda at 50 % of the weights"
    assert treatment(About(method="lrp", unit="head", size=3, scale=0.0)) == "Pruning 3 heads"


def outcome(folder: Path, world: list[Made], *more: str, scorers: tuple[str, ...] = (BASE,)) -> tuple[Json, str]:
    """Verdict and visible text of another world."""
    make_world(folder, world, scorers=scorers)
    assert main(summary_command(folder, world, *more)) == 0
    assert main(report_command(folder, world)) == 0
    text = " ".join(text for text, _ in Page((folder / "report.html").read_text()).text)
    verdict: Json = read_json(folder / "summary.json")["verdict"]
    return verdict, text


def test_report_sets_the_winner_against_the_best_of_another_method(tmp_path: Path) -> None:
    world = [
        Made("baseline"),
        Made("lrp-100", "lrp", "lrp", 100, -0.4, 17.2, layer=5),
        Made("aura-100", "aura", "aura", 100, -0.9, 17.0, layer=3),
        Made("aura-50", "aura", "aura", 50, -0.6, 17.0, layer=3),
    ]
    verdict, text = outcome(tmp_path, world)
    assert (verdict["winner"], verdict["runner_up"]) == ("aura-100", "lrp-100")
    assert verdict["against_runner_up"]["difference"] < 0
    assert "Against lrp-100 (lrp), the best variant of another method within the budget" in text
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
    assert verdict["controls_that_improve"] == ["random-100"]
    assert "No variant reduced the share of toxic continuations reliably" in text
    assert "another method" not in text
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
    summary = read_summary(tmp_path / "summary.json")
    columns = tuple(replace(one, items=6) if one.address == PERPLEXITY else one for one in summary.columns)
    summary = replace(summary, columns=columns, verdict=replace(summary.verdict, controls_that_improve=("random-100",)))
    said = " ".join(confidence(summary, SETTINGS))
    assert "6 windows are few: take this interval with caution." in said
    assert "The only control, random-100, also shows a reduction" in said


def test_the_first_sentence_is_as_sure_as_the_figures(summary: Summary) -> None:
    made = replace(summary, goal=replace(summary.goal, within={PERPLEXITY: Budget(limit=0.025)}))
    made = changed(made, "lrp-100", SHARE, p_holm=0.0612)
    assert "Corrected for the 6 candidates compared it is not established (p = 0.061)." in answer(made)
    made = replace(made, comparisons=1)
    assert "By the permutation test it is not established (p = 0.061)." in answer(made)
    made = replace(made, verdict=replace(made.verdict, winner=None, closest="lrp-100"))
    assert "a perplexity increase of 2.5 %. The largest reduction of one that is not broken, lrp-100" in answer(made)
    made = changed(made, "lrp-100", SHARE, difference=0.01)
    assert "The least rise, for none fell, of one that is not broken, lrp-100, went from" in answer(made)
    assert "would have been found with 80 % probability, by one test without" in " ".join(confidence(made, SETTINGS))
    made = changed(made, "lrp-100", SHARE, detectable=0.0)  # all differences are equal: no such statement
    assert "80 %" not in " ".join(confidence(made, SETTINGS))


def summary_of(goal: Goal, *texts: str, better: float, values: tuple[float, ...] = ()) -> Summary:
    """Two variants and a control, measured on texts and maybe on queries."""
    files = []
    for name, about, change in (
        ("dense", About(kind="baseline"), 0.0),
        ("alps", About(method="alps", unit="weight", size=0.5), better),
        ("random", About(kind="control", method="random", unit="weight", size=0.5), 0.6),
    ):
        noise = np.random.default_rng([1, *name.encode()]).normal(0, 0.01, 24)
        found = [
            Measurement(
                task="perplexity", name=text, label=text.upper(), item="window", items=[str(n) for n in range(24)],
                serial=True,
                metrics={
                    "perplexity": Metric.of(
                        100 * (3 + np.log1p(change) + noise), np.full(24, 100), aggregate="perplexity", direction="lower",
                        title=f"perplexity ({text.upper()})",
                    )
                },
                settings={"tokens": 2400},
            )
            for text in texts
        ]  # fmt: skip
        if values:
            metric = Metric.of(
                np.linspace(0.2, 0.8, 60) - change / 10 + noise.mean(), direction="higher", title="nDCG@10"
            )
            items = [f"q{n}" for n in range(60)]
            found.append(
                Measurement(task="retrieval", name="nf", item="query", items=items, metrics={"ndcg@10": metric})
            )
        files.append(Measured(variant=name, measurements=found, about=about, meta={"model": {"id": "tiny/llama"}}))
    return summarise(files, goal=goal, resamples=200)


@pytest.mark.parametrize("several", [False, True])
def test_a_page_without_toxicity_neurons_or_references(several: bool) -> None:
    texts = ("wikitext2", "c4", "ptb") if several else ("wikitext2",)
    summary = summary_of(Goal(metric="wikitext2.perplexity", direction="lower"), *texts, better=-0.1)
    html = page(summary, [changes(summary)], config={}, facts={}, samples=[], timings=[], origins=[])
    visible = " ".join(text for text, _ in Page(html).text)
    assert "toxi" not in visible.lower()
    assert "Alps at 50 % of the weights took perplexity on WIKITEXT2 from " in visible
    assert "on 24 windows" in visible
    assert "None of the" not in visible
    assert "The only control, random, shows no reduction whose interval lies below zero." in visible
    assert ("Perplexity by text" in visible) == several
    assert ("By PTB, which did not decide: from" in visible) == several
    assert "Is it still language?" not in visible
    assert table(summary).splitlines()[0].startswith("tiny/llama: perplexity (WIKITEXT2), 24 windows")


def test_a_page_whose_goal_is_to_raise_something() -> None:
    goal = Goal(metric="nf.ndcg@10", direction="raise", within={"c4.perplexity": Budget(limit=-0.02)})
    summary = summary_of(goal, "c4", better=-0.1, values=(0.0,))
    assert summary.verdict.winner is None or summary.verdict.winner == "alps"
    said = answer(summary) + " ".join(confidence(summary, {}))
    assert "60 querys" not in said
    assert "nDCG@10" in said


def test_a_baseline_alone_has_a_page(tmp_path: Path) -> None:
    world = WORLD[:1]
    make_world(tmp_path, world)
    assert main(summary_command(tmp_path, world)) == 0
    assert main(report_command(tmp_path, world)) == 0
    text = " ".join(text for text, _ in Page((tmp_path / "report.html").read_text()).text)
    assert "No result: of 0 variants none is left to judge" in text


def test_reference_sets_go_by_their_labels_and_an_onset_is_told_from_an_answer(summary: Summary) -> None:
    answers = {"kind": "generations", "at_least": 0.5, "count": 93}
    references = {
        "onset": {**answers, "span": "onset"},
        "toxic": {**answers, "span": "generation"},
        "c4": {"kind": "windows", "text": "c4", "windows": 8, "seqlen": 128},
    }
    variants = {name: {"method": "lrp", "target": name, "retain": "c4"} for name in ("onset", "toxic")}
    more = {"references": references, "variants": variants, "texts": {"c4": {"label": "C4 sample"}}}
    steps = method(summary, SETTINGS | more)
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


def test_a_page_shows_the_variants_as_configured_by_kind(summary: Summary) -> None:
    variants = {
        "lrp": {
            "edit": "units",
            "method": "lrp",
            "unit": "head",
            "target": "toxic",
            "count": [3, "all"],
            "budget": None,
        },
        "random": {"edit": "units", "method": "random", "target": "toxic", "count": [3], "matched_to": "lrp"},
        "half": {"edit": "compress", "method": "wanda", "patterns": ["50%"]},
    }
    html = page(summary, [], config={"variants": variants}, facts={}, samples=[], timings=[], origins=[])
    visible = " ".join(text for text, _ in Page(html).text)
    assert "Variants as configured. count: the sizes tried." in visible
    assert "variant method unit target count" in re.sub(r"\s+", " ", visible)
    assert "3, all" in visible
    assert "budget:" not in visible
    assert visible.count("Variants as configured.") == 2
    assert "50%" in visible


def test_markup_in_data_stays_text(summary: Summary) -> None:
    evil = {"experiment": "<script>alert(1)</script>", "variants": {"<b>x</b>": {"method": "<i>"}}}
    sample = {"group": "<u>", "id": "<s>", "prompt": "<p>", "mean_before": 0.1, "mean_after": 0.2}
    sample |= {side: [{"completion": "<em>", "score": 0.5}] for side in ("before", "after")}
    html = page(summary, [], config=evil, facts={"<a>": "<q>"}, samples=[sample], timings=[], origins=[{"<o>": 1}])
    assert not re.search(r"<(script|b|i|u|s|a|q|o)>", html)
    assert "&lt;script&gt;" in html
