"""The report on smaller encoders, from measurements whose answers are known."""

import json

import numpy as np
import pytest

from excise.comparison import Change
from excise.goal import parse_budget
from excise.reporting.encoder_page import faster, kept
from excise.reporting.summarise import reached
from excise.reporting.summary import read_summary
from excise.tasks import encoder_cost
from excise.tasks.files import write_measurements
from excise.tasks.measurement import About, Measured, Measurement, Metric

QUERIES = [f"q{n}" for n in range(200)]
ENCODERS = {
    # name: (about, share of nDCG@10 kept, time of documents)
    "dense": (About(kind="baseline"), 1.0, 100.0),
    "units-50": (About(method="embedding", series="units", size=50, share=0.5), 0.99, 50.0),
    "units-70": (About(method="embedding", series="units", size=70, share=0.7), 0.8, 30.0),
    "layers-3": (About(method="layers", series="layers", size=3, share=0.5), 0.97, 45.0),
    "chance-50": (About(kind="control", method="random", series="chance", size=50, share=0.5), 1.0, 20.0),
}
SETTINGS = {
    "experiment": "known",
    "retrieval": {
        "at_least": 0.95,
        "collections": {
            "own": {"label": "Own texts", "format": "beir", "calibration_documents": 5, "tuning_fraction": 0.2},
            "other": {"label": None, "format": "beir", "calibration_documents": 0, "tuning_fraction": 0.0},
        },
        "variants": {
            "units": {"kind": "units", "remove": [0.5, 0.7], "distil": None},
            "layers": {"kind": "layers", "keep": [3], "distil": None},
            "chance": {"kind": "units", "remove": [0.5], "distil": None},
        },
    },
}


def measurements(share: float, time: float) -> list[Measurement]:
    values = np.linspace(0.2, 1, len(QUERIES))
    found = []
    for name, label in (("own", "Own texts"), ("other", "Other <texts>")):
        factor = share if name == "own" or share == 1 else share - 0.03
        for ending, said in (("", ""), ("-asymmetric", ", documents by the dense model")):
            metrics = {
                metric: Metric.of(values * factor, direction="higher", title=f"{metric}, {label}{said}")
                for metric in ("ndcg@10", "recall@100", "mrr@10")
            }
            found.append(
                Measurement(
                    task="retrieval",
                    name=f"{name}{ending}",
                    label=f"{label}{said}",
                    item="query",
                    items=QUERIES,
                    metrics=metrics,
                )
            )
        cosine = Metric.of([share] * 4, direction="higher", title=f"cosine, {label}")
        label = f"{label}, embeddings of documents"
        found.append(
            Measurement(
                task="retrieval",
                name=f"{name}-fidelity",
                label=label,
                item="document",
                items="abcd",
                metrics={"cosine": cosine},
            )
        )
    times = {"1x12": {"rounds": [time / 50] * 3}, "32x64": {"rounds": [time, time + 1, time - 1]}}
    found.append(encoder_cost.measure(times, {"weight_bytes": 1e6 * time, "encoder_parameters": 1e5 * time}, {}))
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("encoders")
    for name, (about, share, time) in ENCODERS.items():
        meta = {"model": {"id": "m", "fingerprint": "f"}}
        write_measurements(
            path / f"{name}.json",
            Measured(variant=name, measurements=measurements(share, time), about=about, meta=meta),
        )
    (path / "settings.json").write_text(json.dumps(SETTINGS))
    return path


def made(folder, excise, *goal):
    files = [folder / f"{name}.json" for name in ENCODERS]
    excise("summary", *files, *goal, "--resamples", 200, "--csv", folder / "s.csv", "--json", folder / "s.json")
    report = ("--summary", folder / "s.json", "--measurements", *files, "--settings", folder / "settings.json")
    excise("report-encoders", *report, "--data", folder / "data", "--output", folder / "r.html")
    return (folder / "r.html").read_text()


def test_the_fastest_that_surely_keeps_enough_wins(folder, excise):
    text = made(folder, excise, "--lower", "cost.documents_ms", "--within", "own.ndcg@10=-5% surely")
    summary = read_summary(folder / "s.json")
    assert summary.verdict.winner == "layers-3"  # units-70 keeps too little, chance is a control
    assert "layers-3 is the fastest of the encoders that surely keep 95 % of the dense model&#39;s ndcg@10" in text
    assert "it keeps 97.0 [97.0, 97.0] %, takes documents 2.22 and queries 2.22 times as fast" in text
    assert "On Other &lt;texts&gt;, which no score, repair or training has seen, it keeps 94.0" in text
    assert "at least 95 %: not shown" in text
    assert sorted(path.name for path in (folder / "data").iterdir()) == [
        "asymmetric.csv",
        "kept-size.csv",
        "kept-time.csv",
    ]
    row = summary.rows["units-50"]
    assert kept(row, "own.ndcg@10") == "99.0 [99.0, 99.0]"
    assert faster(row, "cost.documents_ms") == pytest.approx(2)


def test_of_encoders_as_fast_as_each_other_the_one_that_keeps_most_wins(folder, excise, tmp_path):
    for path in folder.glob("*.json"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    about, share, _ = ENCODERS["units-50"]
    meta = {"model": {"id": "m", "fingerprint": "f"}}
    rounds = [ENCODERS["layers-3"][2] + change for change in (0.4, 0.7, -0.9)]
    times = {"1x12": {"rounds": rounds}, "32x64": {"rounds": rounds}}
    *kept_texts, _ = measurements(share, 1.0)
    timed = encoder_cost.measure(times, {"weight_bytes": 1.0, "encoder_parameters": 1.0}, {})
    measured = Measured(variant="units-50", measurements=[*kept_texts, timed], about=about, meta=meta)
    write_measurements(tmp_path / "units-50.json", measured)
    text = made(tmp_path, excise, "--lower", "cost.documents_ms", "--within", "own.ndcg@10=-5% surely")
    verdict = read_summary(tmp_path / "s.json").verdict
    assert (verdict.winner, verdict.tied) == ("units-50", ("layers-3",))
    assert verdict.against_controls is None
    assert (
        "As fast, as far as the rounds can tell, is layers-3, which keeps 97.0 [97.0, 97.0] % on Own texts and" in text
    )


def test_a_peer_stands_beside_the_nearest_in_time(folder, excise):
    text = made(folder, excise, "--lower", "cost.documents_ms", "--within", "own.ndcg@10=-5% surely")
    peers = text[text.index("Peers at equal time") :]
    row = peers[peers.index("layers-3") :][:400]
    assert "units-50" in row
    assert "+0.012" in row  # (0.99 - 0.97) x 0.6


def test_where_nothing_keeps_enough_the_best_is_named(folder, excise):
    text = made(folder, excise, "--lower", "cost.documents_ms", "--within", "own.ndcg@10=-0.1% surely")
    assert "No encoder is faster and can surely keep" in text


def test_surely_asks_the_whole_interval():
    change = Change(items=9, before=1, after=0.97, difference=-0.03, relative=-0.03, relative_interval=(-0.06, 0.0))
    unknown = Change(items=0, before=1, after=0.99, difference=-0.01, relative=-0.01)
    for text, found, expected in [
        ("-5 %", change, True),
        ("-5 % surely", change, False),
        ("-6 % surely", change, True),
        ("+1 % surely", change, True),
        ("-0.05", change, True),
        ("-0.05 surely", change, False),  # no interval of the difference
        ("-5 % surely", unknown, False),
    ]:
        budget = parse_budget(text, where="x")
        assert budget.allows(reached(found, budget)) is expected, text
