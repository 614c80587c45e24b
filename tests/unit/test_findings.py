"""The interval with the noise of finding: against a naive loop, its coverage by simulation, and what a report says."""

import math
import random
import statistics
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import t

from excise.findings import Spread, spread
from excise.goal import Budget, Goal
from excise.reporting.page_tables import findings_table
from excise.reporting.summarise import summarise
from excise.reporting.summary import Summary
from excise.reporting.words import answer
from excise.stages.show import table
from excise.tasks.measurement import About, Measured, Measurement, Metric


def shares(values: list[float]) -> Metric:
    return Metric.of(values, direction="lower", unit="share", title="toxic share")


def naive(before: list[float], findings: list[list[float]]) -> tuple[float, float, float, float]:
    """Mean, deviation and interval, one number at a time."""
    k, n = len(findings), len(before)
    effects = [sum(after) / n - sum(before) / n for after in findings]
    mean = sum(effects) / k
    between = sum((effect - mean) ** 2 for effect in effects) / (k - 1)
    moved = [sum(after[i] - before[i] for after in findings) / k for i in range(n)]
    judging = sum((one - mean) ** 2 for one in moved) / (n - 1) / n
    half = math.sqrt(t.ppf(0.975, n - 1) ** 2 * judging + t.ppf(0.975, k - 1) ** 2 * (1 + 1 / k) * between)
    return mean, math.sqrt(between), mean - half, mean + half


@pytest.mark.parametrize("k", [3, 5])
def test_the_interval_against_a_naive_loop(k: int) -> None:
    generator = random.Random(k)
    before = [generator.random() for _ in range(40)]
    findings = [[value * generator.uniform(0, 0.5) for value in before] for _ in range(k)]
    found = spread(shares(before), [shares(one) for one in findings])
    assert found is not None
    assert found.interval is not None
    expected = naive(before, findings)
    assert (found.difference, found.deviation, *found.interval) == pytest.approx(expected, rel=1e-10)
    effects = [sum(one) / 40 - sum(before) / 40 for one in findings]
    assert found.worst == pytest.approx(max(effects))
    assert found.relative_worst == pytest.approx(max(effects) / (sum(before) / 40))
    logs = [math.log(sum(one) / sum(before)) for one in findings]
    assert found.relative == pytest.approx(math.expm1(statistics.fmean(logs)))
    assert found.relative_interval is not None
    assert found.relative_interval[0] < found.relative < found.relative_interval[1] < 0


@pytest.mark.parametrize(("finding", "own"), [(0.3, 0.01), (0.0, 0.01), (0.05, 1.0)])
@pytest.mark.parametrize("k", [3, 5])
def test_the_interval_covers_the_next_finding(k: int, finding: float, own: float) -> None:
    """finding: noise of finding; own: noise of judging that the findings do not share; what they share is 1."""
    generator, items, runs, hits = np.random.default_rng(k), 60, 400, 0
    for _ in range(runs):
        shared = generator.normal(0, 1, items)
        after = [
            Metric.of(-1 + generator.normal(0, finding) + shared + generator.normal(0, own, items)) for _ in range(k)
        ]
        found = spread(Metric.of(np.zeros(items)), after)
        assert found is not None
        assert found.interval is not None
        hits += found.interval[0] <= -1 + generator.normal(0, finding) <= found.interval[1]
    assert hits / runs > 0.935


def test_what_has_no_interval_or_no_ratio() -> None:
    same = spread(shares([0.5, 0.5]), [shares([0.25, 0.25])] * 3)
    assert same is not None
    assert same.interval == (-0.25, -0.25)
    gone = spread(shares([0.5, 0.25]), [shares([0.0, 0.0]), shares([0.0, 0.25])])
    assert gone is not None
    assert (gone.relative, gone.relative_interval) == (None, None)
    alone = spread(shares([0.5]), [shares([0.25]), shares([0.125])])
    assert alone is not None
    assert (alone.interval, alone.relative_interval) == (None, None)
    assert spread(Metric(figure=1.0, values=None), [Metric(figure=1.0, values=None)] * 2) is None


def measured(name: str, share: float, rise: float, **about: object) -> Measured:
    generator = np.random.default_rng(list(name.encode()))
    toxic = (generator.random((100, 2)) < share).mean(1)
    nll = 400 * (3 + math.log1p(rise)) + np.random.default_rng(0).normal(0, 5, 24)
    found = [
        Measurement(
            task="behaviour", name="toxicity", label="a scorer", item="prompt", items=[str(n) for n in range(100)],
            metrics={"share": shares(toxic.tolist())}, settings={"noun": "toxicity", "adjective": "toxic"},
        ),
        Measurement(
            task="perplexity", name="wiki", label="Wikipedia", item="window", items=[str(n) for n in range(24)],
            serial=True,
            metrics={"perplexity": Metric.of(nll, np.full(24, 400), aggregate="perplexity", direction="lower")},
        ),
    ]  # fmt: skip
    return Measured(variant=name, measurements=found, about=About(**about), meta={"model": {"id": "tiny"}})  # type: ignore[arg-type]


LIST = {"method": "trust-region", "unit": "neuron", "size": 9, "scale": "per row"}


def summary_of(findings: int) -> Summary:
    files = [measured("baseline", 0.4, 0.0, kind="baseline"), measured("random", 0.4, 0.01, kind="control", **LIST)]
    for number in range(1, findings + 1):
        kind = "candidate" if number == 1 else "replicate"
        more = {"kind": kind, "series": "tr", "finding": number, **LIST}
        files.append(measured(f"tr{number}", 0.02 * (1 + number), 0.02, **more))
    goal = Goal(metric="toxicity.share", direction="lower", within={"wiki.perplexity": Budget(limit=0.03)})
    return summarise(files, goal=goal, resamples=200)


def test_the_first_sentence_rests_on_the_findings() -> None:
    summary = summary_of(3)
    assert (summary.verdict.winner, summary.comparisons) == ("tr1", 1)
    (several,) = summary.findings
    assert several.variants == ("tr1", "tr2", "tr3")
    found: Spread = several.spreads["toxicity.share"]
    first = summary.rows["tr1"].change("toxicity.share")
    assert first.interval is not None
    assert found.interval is not None
    assert found.interval[1] - found.interval[0] > first.interval[1] - first.interval[0]
    said = answer(summary)
    assert "found 3 times from references of its own each time" in said
    assert "perplexity on Wikipedia by +2.0 %, 95 % interval" in said
    assert "they contain the noise of finding and of judging" in said
    shown = findings_table(summary)
    assert shown is not None
    assert [cells[0] for _, cells in shown.rows] == ["tr1", "tr2", "tr3", "deviation", "all 3"]
    assert "tr1 found 3 times: toxic share " in table(summary)


def test_one_finding_is_said_to_be_one() -> None:
    summary = summary_of(1)
    assert summary.findings == ()
    assert findings_table(summary) is None
    assert answer(summary).endswith("It was found once: the noise of finding is not in these intervals.")
    weights = replace(summary.rows["tr1"].about, scale=None, unit="weight")
    rows = tuple(replace(row, about=weights) if row.variant == "tr1" else row for row in summary.variants)
    assert "found once" not in answer(replace(summary, variants=rows))
