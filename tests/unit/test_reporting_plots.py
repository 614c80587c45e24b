"""The plots and the data behind them."""

import csv
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from excise.reporting import plots
from excise.reporting.plots import categories
from excise.reporting.style import render
from excise.reporting.summarise import summarise
from excise.reporting.summary import Summary
from excise.reporting.trade_off import trade_off
from tests.unit.reporting import CATEGORIES, LAYERS, PERPLEXITY, PROMPTS, SHARE, WIDTH, WORLD
from tests.unit.test_reporting_summary import compressed


def test_data_behind_every_plot(results: Path, summary: Summary) -> None:
    tables = {}
    for path in (results / "report-data").glob("*.csv"):
        with path.open(encoding="utf-8", newline="") as file:
            tables[path.stem] = list(csv.DictReader(file))
    expected = {"trade-off", "changes", "before-after", "categories", "layers", "stability", "overlap"}
    assert tables.keys() == expected
    assert len(tables["trade-off"]) == len(WORLD)
    baseline, first, *_ = tables["trade-off"]
    assert baseline[f"{PERPLEXITY} low"] == baseline[f"{PERPLEXITY} high"] == ""
    assert float(first[f"{PERPLEXITY} low"]) < float(first[PERPLEXITY]) < float(first[f"{PERPLEXITY} high"])
    assert len(tables["before-after"]) == PROMPTS
    assert {row["category"]: int(row["items"]) for row in tables["categories"]} == dict.fromkeys(CATEGORIES, 40)
    by_layer = [int(row["neurons"]) for row in tables["layers"] if row["variant"] == "lrp-100"]
    assert by_layer == [100 * (layer == 5) for layer in range(LAYERS)]
    assert {float(row["jaccard"]) for row in tables["overlap"] if row["variant"] == row["with"]} == {1.0}
    assert float(tables["stability"][0]["chance"]) == pytest.approx(30 / (2 * LAYERS * WIDTH - 30))
    assert len(tables["changes"]) == 2 * (len(WORLD) - 1)
    share = {row["variant"]: float(row[SHARE]) for row in tables["trade-off"]}
    assert share["lrp-100"] == summary.rows["lrp-100"].cells[SHARE].figure


def marks(figure: Figure, marker: str) -> list[tuple[float, float]]:
    """Positions of the marks of one shape, over all panels."""
    return [
        (float(line.get_xdata()[0]), float(line.get_ydata()[0]))
        for axes in figure.axes
        for line in axes.get_lines()
        if line.get_marker() == marker
    ]


def test_trade_off_shows_every_variant_where_it_is(summary: Summary) -> None:
    def at(name: str) -> tuple[float, float]:
        cells = summary.rows[name].cells
        return cells[PERPLEXITY].figure or 0.0, 100 * (cells[SHARE].figure or 0.0)

    figure = trade_off(summary)
    assert len(figure.axes) == 2
    assert set(marks(figure, "x")) == {at("lrp-plain-100"), at("loop-100")}
    assert marks(figure, "*") == [at("baseline")]
    # The circle is the first selection's shape; the fourth one is the ring around the winner.
    assert sorted(marks(figure, "o")) == sorted([at("lrp-30"), at("lrp-100"), at("lrp-300"), at("lrp-100")])
    near, far = figure.axes
    assert near.get_xlim()[1] < 16.7 * 1.5 < far.get_xlim()[0] < 138.9 < far.get_xlim()[1]


def test_trade_off_without_far_variants_and_with_very_far_ones(summary: Summary) -> None:
    sound = tuple(row for row in summary.variants if (row.cells[PERPLEXITY].figure or 0.0) < 20)
    assert len(trade_off(replace(summary, variants=sound)).axes) == 1
    row = summary.rows["lrp-plain-100"]
    farther = replace(row, cells={**row.cells, PERPLEXITY: replace(row.cells[PERPLEXITY], figure=9e5)})
    assert trade_off(replace(summary, variants=(*summary.variants, farther))).axes[1].get_xscale() == "log"


def test_sizes_of_variants_at_one_place_can_be_read(summary: Summary) -> None:
    cells = summary.rows["lrp-100"].cells
    figure = trade_off(
        replace(summary, variants=tuple(replace(row, cells=cells, broken=False) for row in summary.variants))
    )
    figure.canvas.draw()
    boxes = [text.get_window_extent() for axes in figure.axes for text in axes.texts]
    assert len(boxes) >= 4
    assert not [(a, b) for a, b in combinations(boxes[:4], 2) if a.overlaps(b)]


def test_chance_overlap_is_what_random_lists_share() -> None:
    generator = np.random.default_rng(0)
    total, count = 400, 100
    lists = [set(generator.choice(total, count, replace=False).tolist()) for _ in range(200)]
    found = np.mean([len(a & b) / len(a | b) for a, b in zip(lists[::2], lists[1::2], strict=True)])
    assert count / (2 * total - count) == pytest.approx(found, rel=0.05)


@pytest.mark.parametrize("name", ["$5 to $10", "a_$b$", r"$\nothing$", "50 $"])
def test_a_dollar_in_a_name_is_a_dollar(name: str) -> None:
    row = {"category": name, "items": 40, "before": 0.3, "after": 0.2, "difference": -0.1, "interval": (-0.2, -0.05)}
    picture = render(categories, [row, row], "x", f"share of {name}")
    assert picture == render(categories, [row, row], "x", f"share of {name}")
    assert b"<svg" in picture


def test_perplexities_far_apart_are_drawn_as_multiples() -> None:
    files = [compressed("baseline", 0, kind="baseline"), compressed("wanda", 0.6), compressed("magnitude", 60.0)]
    found = summarise(files, resamples=100)
    (panel, *_) = plots.changes(found, [found.target]).axes
    assert panel.get_xscale() == "log"
    drawn = {line.get_ydata()[0]: line.get_xdata()[0] for line in panel.lines if line.get_marker() not in ("None", "")}
    assert drawn[0] == pytest.approx(1.6, rel=0.02)
    assert drawn[1] == pytest.approx(61, rel=0.02)


def test_a_control_far_beyond_all_candidates_is_a_number_at_the_edge() -> None:
    files = [compressed("baseline", 0, kind="baseline"), compressed("wanda", 0.6), compressed("magnitude", 60.0)]
    found = summarise([*files, compressed("random", 4e6, kind="control")], resamples=100)
    (panel, *_) = plots.changes(found, [found.target]).axes
    assert panel.get_xlim()[1] == pytest.approx(3 * 61, rel=0.02)
    assert [text.get_text() for text in panel.texts] == ["4e+06 →"]
    near = summarise([*files, compressed("random", 99.0, kind="control")], resamples=100)
    assert not plots.changes(near, [near.target]).axes[0].texts
