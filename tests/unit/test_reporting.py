"""Summary and report on made-up generations with a known effect, through the real evaluate stage."""

import copy
import csv
import json
import math
import re
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from excise.artefacts import Json, read_json, sha256_file, write_json, write_jsonl
from excise.cli import main
from excise.comparison import holm
from excise.errors import ExciseError
from excise.reporting.samples import pick
from excise.reporting.summary import Limits, broken
from excise.reporting.trade_off import trade_off
from excise.reporting.words import answer, treatment

PROMPTS, DRAWS, LAYERS, WIDTH = 120, 2, 12, 500
BASE, SECOND = "alt-profanity-check", "hf:roberta_toxicity"
MODEL = {"id": "tiny/llama", "revision": None, "fingerprint": "ab" * 32, "dtype": "float32"}
CATEGORIES = ("identity attack", "insult", "threat")
SETTINGS = {
    "experiment": "made up",
    "seeds": [0, 1, 2],
    "prompts": {"label": "RealToxicityPrompts", "attribution_fraction": 0.5},
    "responses": {"draws": 2, "scorer": BASE},
    "evaluation": {"draws": DRAWS, "scorers": [BASE, SECOND]},
}


@dataclass
class Made:
    """A variant and what shall be true of it."""

    name: str
    method: str = ""
    selection: str = ""
    neurons: int = 0
    effect: float = 0.0  # relative change of every prompt's toxic rate
    perplexity: float = 16.7
    fluency: float = 9.0
    repeat: bool = False  # continuations repeat one token
    layer: int = 0  # where most of the neurons sit


WORLD = [
    Made("baseline"),
    Made("lrp-30", "lrp", "lrp", 30, -0.3, 16.9, layer=4),
    Made("lrp-100", "lrp", "lrp", 100, -0.65, 17.2, layer=5),
    Made("lrp-300", "lrp", "lrp", 300, -0.8, 18.2, layer=6),
    Made("lrp-plain-100", "lrp", "lrp-plain", 100, -0.97, 138.9, 60.0, layer=11),
    Made("wanda-100", "wanda", "wanda", 100, -0.25, 17.0, layer=2),
    Made("loop-100", "gradient", "loop", 100, -1.0, 17.1, 2.0, repeat=True, layer=9),
    Made("magnitude-100", "magnitude", "magnitude", 100, 0.0, 17.3, layer=7),
    Made("random-draw0-100", "random", "random", 100, 0.0, 16.8),
    Made("random-draw1-100", "random", "random", 100, 0.02, 17.5),
]


def selection(made: Made, path: Path) -> None:
    generator = np.random.default_rng(sum(map(ord, made.name)))
    wide = generator.choice(LAYERS * WIDTH, made.neurons, replace=False)
    near = made.layer * WIDTH + generator.choice(WIDTH, made.neurons, replace=False) if made.layer else wide
    control = made.method in ("random", "magnitude")
    body = {
        "name": made.selection,
        "method": made.method,
        "control": control,
        "factor": 0.0,
        "layers": LAYERS,
        "neurons_per_layer": WIDTH,
        "stability": {}
        if control
        else {"seeds": 3, "jaccard_between_seeds": [0.6, 0.55, 0.7], "jaccard_with_mean": [0.8, 0.75, 0.82]},
        "neurons": [
            {
                "layer": int(i) // WIDTH,
                "neuron": int(i) % WIDTH,
                "rank": rank,
                "score": None if control else -1.0 / rank,
                "general": None,
                "toxic": None,
            }
            for rank, i in enumerate(near, 1)
        ],
    }
    write_json(path, {"model": MODEL, "settings": {}, "versions": {}}, body)


def make_variant(
    folder: Path,
    made: Made,
    *,
    prompts: int = PROMPTS,
    scorers: tuple[str, ...] = (BASE, SECOND),
    words: tuple[str, ...] = (),
) -> Path:
    """Write everything of a variant and evaluate it; returns its folder."""
    latent = np.random.default_rng(42)
    rates = latent.beta(0.6, 1.8, prompts)
    generator = np.random.default_rng([7, *map(ord, made.name)])
    here = folder / "variants" / made.name
    chosen: Json | None = None
    if made.method:
        path = folder / "selections" / f"{made.name}.json"
        selection(made, path)
        chosen = {"name": made.selection, "neurons": made.neurons, "factor": 0.0, "sha256": sha256_file(path)}
    facts = {"model": MODEL, "selection": chosen, "versions": {"torch": "2.13.0"}}
    rows, scores, likelihoods = [], {scorer: [] for scorer in scorers}, []
    for index in range(prompts):
        for draw in range(DRAWS):
            ids = [5] * 20 if made.repeat else generator.choice(900, 20).tolist()
            toxic = generator.random() < rates[index] * (1 + made.effect)
            word = "<b>darn</b> & 'heck'" if toxic else "a kind word"
            key = {"id": f"p{index:03}", "draw": draw}
            rows.append(
                {
                    **key,
                    "prompt": f"Prompt number {index} <script>alert(1)</script>",
                    "prompt_ids": [1, 2],
                    "completion": f" said {word} {draw}",
                    "completion_ids": ids,
                    "category": CATEGORIES[index % 3],
                }
            )
            likelihoods.append({**key, "nll": 20 * math.log(made.fluency), "tokens": 20})
            for number, scorer in enumerate(scorers):
                noise = generator.beta(2, 6) / 2
                flipped = toxic if generator.random() > 0.1 * number else not toxic
                scores[scorer].append({**key, "score": 1 - noise if flipped else noise})
    write_jsonl(here / "generations.jsonl", {**facts, "settings": {"seed": 0, "draws": DRAWS}}, rows)
    source = {"settings": {"generations": sha256_file(here / "generations.jsonl")}}
    for number, scorer in enumerate(scorers):
        meta = {**facts, **source, "scorer": {"name": scorer}}
        write_jsonl(here / f"scores-{number}.jsonl", meta, scores[scorer])
    write_jsonl(here / "fluency.jsonl", {**facts, **source}, likelihoods)
    text = {"tokens": 6132, "windows": 12, "protocol": "windows-512x12", "text": "Wikipedia articles"}
    body = {"perplexity": made.perplexity, "nll": math.log(made.perplexity), **text}
    write_json(here / "perplexity.json", facts, body)
    command = ["evaluate", "--variant", made.name, "--generations", str(here / "generations.jsonl"), "--scores"]
    command += [str(here / f"scores-{number}.jsonl") for number in range(len(scorers))]
    command += ["--perplexity", str(here / "perplexity.json"), "--fluency", str(here / "fluency.jsonl")]
    assert main([*command, *words, "--output", str(here / "evaluation.json")]) == 0
    return here


def make_world(folder: Path, world: list[Made] = WORLD, **options: object) -> Path:
    for made in world:
        make_variant(folder, made, **options)  # type: ignore[arg-type]
    (folder / "settings.json").write_text(json.dumps(SETTINGS), encoding="utf-8")
    write_json(folder / "model.json", {}, {"architecture": "llama", "layers": LAYERS, "neurons_per_layer": WIDTH})
    for step, variant, seconds, memory in (
        ("generate", "baseline", 61.2, 1500),
        ("score", "baseline-0", 2.5, 90),
    ):
        path = folder / "logs" / step / f"{variant}.log"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"12:00:00 excise {step}: took {seconds} s and at most {memory} MB\n", encoding="utf-8")
    return folder


def summary_command(folder: Path, world: list[Made] = WORLD, *more: str) -> list[str]:
    names = [made.name for made in world[1:]]
    return [
        *("summary", "--baseline", str(folder / "variants/baseline/evaluation.json"), "--evaluations"),
        *(str(folder / "variants" / name / "evaluation.json") for name in names),
        "--selections",
        *(str(folder / "selections" / f"{name}.json") for name in names),
        *("--resamples", "1000", "--csv", str(folder / "summary.csv"), "--json", str(folder / "summary.json")),
        *more,
    ]


def report_command(folder: Path, world: list[Made] = WORLD, *more: str) -> list[str]:
    names = [made.name for made in world]
    return [
        *("report", "--summary", str(folder / "summary.json"), "--settings", str(folder / "settings.json")),
        "--evaluations",
        *(str(folder / "variants" / name / "evaluation.json") for name in names),
        "--selections",
        *(str(folder / "selections" / f"{name}.json") for name in names[1:]),
        "--generations",
        *(str(folder / "variants" / name / "generations.jsonl") for name in names),
        "--scores",
        *(str(folder / "variants" / name / "scores-0.jsonl") for name in names),
        *("--timings", str(folder / "logs"), "--model", str(folder / "model.json")),
        *("--data", str(folder / "report-data"), "--picture", str(folder / "trade-off.svg")),
        *("--output", str(folder / "report.html"), *more),
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = make_world(tmp_path_factory.mktemp("a world 'quoted' ü"))
    assert main(summary_command(made)) == 0
    assert main(report_command(made)) == 0
    return made


@pytest.fixture(scope="module")
def summary(folder: Path) -> dict[str, Json]:
    body = read_json(folder / "summary.json")
    return {**body, "rows": {row["variant"]: row for row in body["variants"]}}


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
    assert controls == {"magnitude-100", "random-draw0-100", "random-draw1-100"}
    assert summary["verdict"]["controls_that_reduce"] == []
    against = summary["verdict"]["against_controls"]
    assert against["controls"] == ["random-draw0-100", "random-draw1-100"]
    assert against["interval"][1] < 0


def test_changes_match_a_calculation_from_the_scores(folder: Path, summary: Json) -> None:
    def share(variant: str) -> float:
        lines = (folder / "variants" / variant / "scores-0.jsonl").read_text().splitlines()[1:]
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


def test_csv_holds_the_same_and_never_mixes_scorers(folder: Path, summary: Json) -> None:
    with (folder / "summary.csv").open(encoding="utf-8", newline="") as file:
        rows = {row["variant"]: row for row in csv.DictReader(file)}
    assert list(rows) == [made.name for made in WORLD]
    row, body = rows["lrp-100"], summary["rows"]["lrp-100"]
    assert float(row["perplexity[Wikipedia articles, windows-512x12]"]) == 17.2
    for scorer in (BASE, SECOND):
        assert float(row[f"toxic_share[{scorer} >= 0.5]"]) == body["scores"][scorer]["share"]
        assert float(row[f"mean[{scorer}]"]) == body["scores"][scorer]["mean"]
        assert float(row[f"toxic_share[{scorer} >= 0.5] change low"]) == body["change"][scorer]["interval"][0]
    assert row["winner"] == "True"
    assert rows["baseline"][f"toxic_share[{BASE} >= 0.5] change"] == ""
    assert rows["loop-100"]["flag"] == "broken"


def test_same_command_same_bytes(folder: Path, tmp_path: Path) -> None:
    files = ("summary.csv", "summary.json", "report.html", "trade-off.svg", "report-data/trade-off.csv")
    first = {name: (folder / name).read_bytes() for name in files}
    assert main(summary_command(folder)) == 0
    assert main(report_command(folder)) == 0
    assert {name: (folder / name).read_bytes() for name in files} == first
    assert main(report_command(folder, WORLD, "--picture", str(tmp_path / "picture.png"))) == 0
    assert (tmp_path / "picture.png").read_bytes()[:4] == b"\x89PNG"


class Page(HTMLParser):
    """Collects what a report consists of."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.open: list[str] = []
        self.text: list[tuple[str, bool]] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for key, value in attrs if key in ("src", "href")]
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append((data, "details" in self.open))


def test_report_is_self_contained_escaped_and_hides_what_the_model_wrote(folder: Path) -> None:
    html = (folder / "report.html").read_text(encoding="utf-8")
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


@pytest.mark.parametrize(
    ("factor", "centre", "words"),
    [
        (0.0, "zero", "Pruning 30 neurons"),
        (0.0, "mean", "Holding at their mean 30 neurons"),
        (-1.0, "zero", "Reversing 30 neurons"),
        (-1.0, "mean", "Reversing about their mean 30 neurons"),
        (0.5, "zero", "Scaling by 0.5 the output of 30 neurons"),
        ("expertise", "zero", "Dampening by expertise the output of 30 neurons"),
    ],
)
def test_what_was_done_to_the_neurons_is_said(factor: float | str, centre: str, words: str) -> None:
    row = {"factor": factor, "centre": centre, "neurons": 30, "share_of_neurons": 0.005}
    assert treatment(row) == f"{words} (0.50 % of all)"


def test_report_says_what_how_sure_and_what_it_cost(folder: Path, summary: Json) -> None:
    visible = " ".join(text for text, hidden in Page((folder / "report.html").read_text()).text if not hidden)
    change = summary["rows"]["lrp-100"]["change"][BASE]
    minus = "\N{MINUS SIGN}"
    low, high = (f"{100 * edge:+.1f}".replace("-", minus) for edge in change["interval"])
    assert f"95 % interval {low} to {high}" in visible
    assert "Pruning 100 neurons (1.67 % of all) chosen by lrp" in visible
    assert "from 16.70 to 17.20 (+3.0 %)" in visible
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
    assert "lrp-plain-100 is broken and its toxicity proves nothing" in visible
    assert "ab" * 32 in visible
    assert "torch 2.13.0" in visible
    assert "1,500" in visible


def test_another_behaviour_goes_by_its_own_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    world = [WORLD[0], *WORLD[2:5]]
    words = ("--noun", "repetition", "--adjective", "repetitive")
    make_world(tmp_path, world, scorers=("repetition",), words=words)
    settings = {**SETTINGS, "responses": {"greedy": True, "draws": 1, "scorer": "repetition"}}
    settings |= {"prompts": {"label": "openings"}, "evaluation": {"draws": DRAWS, "scorers": ["repetition"]}}
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
    assert "lrp-plain-100 is broken and its repetition proves nothing" in visible
    assert "answered each prompt of the first part once, always with the most probable token" in visible
    assert "repetitive_share[repetition >= 0.5] change low" in (tmp_path / "summary.csv").read_text()


def test_data_behind_every_plot(folder: Path, summary: Json) -> None:
    tables = {}
    for path in (folder / "report-data").glob("*.csv"):
        with path.open(encoding="utf-8", newline="") as file:
            tables[path.stem] = list(csv.DictReader(file))
    expected = {"trade-off", "changes", "before-after", "categories", "layers", "stability", "overlap"}
    assert tables.keys() == expected
    assert len(tables["trade-off"]) == len(WORLD)
    assert len(tables["before-after"]) == PROMPTS
    assert {row["category"]: int(row["prompts"]) for row in tables["categories"]} == dict.fromkeys(CATEGORIES, 40)
    by_layer = [int(row["neurons"]) for row in tables["layers"] if row["variant"] == "lrp-100"]
    assert by_layer == [100 * (layer == 5) for layer in range(LAYERS)]
    assert {float(row["jaccard"]) for row in tables["overlap"] if row["variant"] == row["with"]} == {1.0}
    assert float(tables["stability"][0]["chance"]) == pytest.approx(30 / (2 * LAYERS * WIDTH - 30))
    assert len(tables["changes"]) == 2 * (len(WORLD) - 1)
    share = {row["variant"]: float(row["share"]) for row in tables["trade-off"]}
    assert share["lrp-100"] == summary["rows"]["lrp-100"]["scores"][BASE]["share"]


def marks(figure: Figure, marker: str) -> list[tuple[float, float]]:
    """Positions of the marks of one shape, over all panels."""
    return [
        (float(line.get_xdata()[0]), float(line.get_ydata()[0]))
        for axes in figure.axes
        for line in axes.get_lines()
        if line.get_marker() == marker
    ]


def test_trade_off_shows_every_variant_where_it_is(summary: Json) -> None:
    def at(name: str) -> tuple[float, float]:
        row = summary["rows"][name]
        return row["perplexity"], 100 * row["scores"][BASE]["share"]

    figure = trade_off(summary)
    assert len(figure.axes) == 2
    assert set(marks(figure, "x")) == {at("lrp-plain-100"), at("loop-100")}
    assert marks(figure, "*") == [at("baseline")]
    # The circle is the first selection's shape; the fourth one is the ring around the winner.
    assert sorted(marks(figure, "o")) == sorted([at("lrp-30"), at("lrp-100"), at("lrp-300"), at("lrp-100")])
    near, far = figure.axes
    assert near.get_xlim()[1] < 16.7 * 1.5 < far.get_xlim()[0] < 138.9 < far.get_xlim()[1]


def test_trade_off_without_far_variants_and_with_very_far_ones(summary: Json) -> None:
    sound = [row for row in summary["variants"] if row["perplexity"] < 20]
    assert len(trade_off({**summary, "variants": sound}).axes) == 1
    farther = {**summary["rows"]["lrp-plain-100"], "perplexity": 9e5}
    assert trade_off({**summary, "variants": [*summary["variants"], farther]}).axes[1].get_xscale() == "log"


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


def test_chance_overlap_is_what_random_lists_share() -> None:
    generator = np.random.default_rng(0)
    total, count = 400, 100
    lists = [set(generator.choice(total, count, replace=False).tolist()) for _ in range(200)]
    found = np.mean([len(a & b) / len(a | b) for a, b in zip(lists[::2], lists[1::2], strict=True)])
    assert count / (2 * total - count) == pytest.approx(found, rel=0.05)


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


def test_limits_are_options(folder: Path, tmp_path: Path) -> None:
    more = ("--max-perplexity-increase", "0.2", "--broken-perplexity-increase", "20", "--broken-fluency-ratio", "10")
    more += ("--json", str(tmp_path / "summary.json"), "--csv", str(tmp_path / "summary.csv"))
    assert main(summary_command(folder, WORLD, *more)) == 0
    body = read_json(tmp_path / "summary.json")
    assert body["verdict"]["winner"] == "lrp-300"
    assert [row["variant"] for row in body["variants"] if row["flag"]] == ["loop-100"]
    assert body["limits"] == body["meta"]["settings"]["limits"]
    assert body["limits"]["broken_fluency_ratio"] == 10


def test_another_scorer_may_decide(folder: Path, tmp_path: Path) -> None:
    more = ("--scorer", SECOND, "--json", str(tmp_path / "s.json"), "--csv", str(tmp_path / "s.csv"))
    assert main(summary_command(folder, WORLD, *more)) == 0
    assert read_json(tmp_path / "s.json")["primary"] == SECOND


def refused(command: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(command) == 1
    assert message in capsys.readouterr().err


def test_summary_refuses_what_cannot_be_compared(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = read_json(folder / "variants/lrp-30/evaluation.json")
    world = WORLD[:2]

    def with_change(message: str, **changes: object) -> None:
        bad = tmp_path / "evaluation.json"
        body = {**good, **changes}
        bad.write_text(json.dumps(body), encoding="utf-8")
        command = summary_command(folder, world, "--json", str(tmp_path / "s.json"), "--csv", str(tmp_path / "s.csv"))
        command[command.index("--evaluations") + 1] = str(bad)
        refused(command, message, capsys)
        assert not (tmp_path / "s.json").exists()

    with_change("not the same prompts in the same order", prompts=good["prompts"][::-1])
    with_change("not the same prompts in the same order", prompts=good["prompts"][:-1])
    with_change("perplexity protocol differs", perplexity={**good["perplexity"], "protocol": "sliding-2048-512"})
    with_change("perplexity text differs", perplexity={**good["perplexity"], "text": "WikiText2"})
    with_change("model differs", meta={**good["meta"], "model": {**MODEL, "fingerprint": "cd"}})
    with_change("settings of the generation differs", meta={**good["meta"], "generation": {"seed": 1, "draws": 2}})
    with_change("more than once", variant="baseline")
    other = {**good["scores"], BASE: {**good["scores"][BASE], "shown_by": "score >= 0.9"}}
    with_change("behaviour differs", scores=other)
    wrong = {**good["scores"], BASE: {**good["scores"][BASE], "share": 0.9}}
    with_change("inconsistent", scores=wrong)
    with_change("behaviour differs", behaviour={"noun": "repetition", "adjective": "repetitive"})
    with_change("made with no neuron list", meta={**good["meta"], "selection": None})


def test_bad_commands(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    refused(summary_command(folder, WORLD, "--scorer", "detoxify"), "unknown scorer", capsys)
    refused(summary_command(folder, WORLD, "--resamples", "10"), "at least 100", capsys)
    refused(summary_command(folder, WORLD, "--broken-empty-rise", "-1"), "not negative", capsys)
    swapped = summary_command(folder)
    at = swapped.index("--selections")
    swapped[at + 1], swapped[at + 2] = swapped[at + 2], swapped[at + 1]
    refused(swapped, "The order of --evaluations and --selections must be the same", capsys)
    del swapped[at + 1]
    refused(swapped, "9 evaluations but 8 selections", capsys)
    refused(report_command(folder, WORLD, "--picture", str(tmp_path / "x.pdf")), "unknown picture format", capsys)
    refused(report_command(folder, WORLD[:-1]), "made from other evaluations", capsys)
    (tmp_path / "empty").mkdir()
    refused(
        report_command(folder, WORLD, "--timings", str(tmp_path / "empty")),
        "no log in it that says what a stage took",
        capsys,
    )
    short = report_command(folder)
    del short[short.index("--scores") + 1]
    refused(short, "9 files for 10 evaluations", capsys)
