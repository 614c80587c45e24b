"""The one file of measurements: written, read back, and refused where it does not agree with itself."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from excise.artefacts import Json
from excise.errors import ExciseError
from excise.tasks.files import read_measurements, write_measurements
from excise.tasks.measurement import (
    About,
    Measured,
    Measurement,
    Metric,
    aggregated,
    check_comparable,
    find,
    merged,
)


def example(variant: str = "lrp-3", *, name: str = "wikipedia", shift: float = 0.0) -> Measured:
    losses = Metric.of(
        [30.0 + shift, 20.0, 25.0], [10, 8, 9], aggregate="perplexity", direction="lower", title="perplexity (here)"
    )
    bare = Metric(figure=0.5, values=None, compared=False)
    windows = Measurement(
        task="perplexity",
        name=name,
        label="Wikipedia articles",
        items=["0", "1", "2"],
        serial=True,
        metrics={"perplexity": losses, "bare": bare},
        groups={"chapter": ["a", "a", None]},
        settings={"seqlen": 11},
        details={"tokens": 27},
        provenance={"stage": "perplexity"},
    )
    about = About(kind="control", method="random", unit="neuron", size=3, share=0.1, scale=0.0)
    return Measured(variant=variant, measurements=[windows], about=about, meta={"stage": "evaluate"})


def test_a_file_comes_back_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "m.json"
    write_measurements(path, example())
    first, found = path.read_bytes(), read_measurements(path)
    (one,) = found.measurements
    assert (found.variant, found.meta, found.about) == ("lrp-3", {"stage": "evaluate"}, example().about)
    assert (one.task, one.name, one.label, one.items, one.serial) == (
        *("perplexity", "wikipedia", "Wikipedia articles"),
        ["0", "1", "2"],
        True,
    )
    assert (one.groups, one.settings, one.details) == (
        {"chapter": ["a", "a", None]},
        {"seqlen": 11},
        {"tokens": 27},
    )
    metric = one.metrics["perplexity"]
    assert metric.values is not None
    assert metric.values.tolist() == [30, 20, 25]
    assert metric.figure == pytest.approx(math.exp(75 / 27), rel=1e-15)
    assert (metric.aggregate, metric.direction, metric.unit) == ("perplexity", "lower", "number")
    assert (metric.title, metric.compared, one.metrics["bare"].compared) == ("perplexity (here)", True, False)
    assert one.provenance == {"stage": "perplexity"}
    write_measurements(path, found)
    assert path.read_bytes() == first


def test_aggregates_against_plain_sums() -> None:
    values, weights = np.array([1.0, 0.0, 0.5]), np.array([2.0, 3.0, 5.0])
    assert aggregated(values, None, "mean") == 0.5
    assert aggregated(values, weights, "mean") == (2 + 2.5) / 10
    assert aggregated(values, weights, "ratio") == 1.5 / 10
    assert aggregated(values, weights, "perplexity") == math.exp(0.15)
    assert aggregated(values, np.zeros(3), "ratio") is None
    with pytest.raises(ExciseError, match="unknown aggregate 'median'"):
        aggregated(values, None, "median")


def test_some_of_the_items() -> None:
    metric = Metric.of([1.0, 2.0, 4.0], [1, 1, 2], aggregate="ratio", direction="higher", unit="share")
    part = metric.take([0, 2])
    assert part.figure == 5 / 3
    assert (part.aggregate, part.direction, part.unit) == ("ratio", "higher", "share")
    with pytest.raises(ExciseError, match="no values per item"):
        Metric(figure=1.0, values=None).take([0])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"items": ["0", "1", "1"]}, "item '1' comes twice"),
        ({"items": ["0", "1"], "groups": {}}, r"values of shape \(3,\) for 2 items; give one per item"),
        ({"groups": {"chapter": ["a"]}}, "group 'chapter' has 1 values for 3 items"),
        ({"metrics": {"perplexity": {"values": [30, 20, 26]}}}, "metric 'perplexity': its figure is .* inconsistent"),
        ({"metrics": {"perplexity": {"figure": None}}}, "inconsistent"),
        ({"metrics": {"perplexity": {"weights": None}}}, "needs weights"),
        ({"metrics": {"perplexity": {"values": [30, None, 25]}}}, "item 1 is not a finite number"),
        ({"metrics": {"perplexity": {"aggregate": "median"}}}, "unknown aggregate 'median'"),
        ({"metrics": {"perplexity": {"direction": "up"}}}, "unknown direction 'up'"),
        ({"metrics": {"perplexity": {"unit": "kg"}}}, "unknown unit 'kg'"),
        ({"metrics": {"perplexity": {"values": "x"}}}, "not a file of measurements"),
        ({"colour": "red"}, "not a file of measurements .*colour"),
        ({"items": None}, "not a file of measurements"),
    ],
)
def test_what_does_not_agree_with_itself_is_refused(changes: Json, message: str, tmp_path: Path) -> None:
    path = tmp_path / "m.json"
    write_measurements(path, example())
    body = json.loads(path.read_text())
    metrics = changes.pop("metrics", {})
    body["measurements"][0] |= changes
    for name, change in metrics.items():
        body["measurements"][0]["metrics"][name] |= change
    path.write_text(json.dumps(body))
    with pytest.raises(ExciseError, match=f"m.json: .*{message}"):
        read_measurements(path)


def test_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.json"
    path.write_text('{"meta": {}, "variant": "x"}')
    with pytest.raises(ExciseError, match="it lacks about, measurements"):
        read_measurements(path)
    twice = example()
    write_measurements(path, twice)
    body = json.loads(path.read_text())
    path.write_text(json.dumps(body | {"about": {"kind": "winner"}}))
    with pytest.raises(ExciseError, match="unknown kind of variant 'winner'"):
        read_measurements(path)
    write_measurements(path, Measured(variant="x", measurements=[*twice.measurements] * 2))
    with pytest.raises(ExciseError, match="two measurements are called 'wikipedia'"):
        read_measurements(path)


def test_files_of_one_variant_are_put_together() -> None:
    base, first, second = example("baseline"), example(), example(name="c4")
    found = merged([base, first, second])
    assert [one.variant for one in found] == ["baseline", "lrp-3"]
    assert [one.name for one in found[1].measurements] == ["wikipedia", "c4"]
    with pytest.raises(ExciseError, match="variant 'lrp-3': 'wikipedia' is given more than once"):
        merged([first, second, first])
    with pytest.raises(ExciseError, match=r"variant 'lrp-3': About.* in another"):
        merged([first, replace(second, about=About())])


def test_only_the_same_is_compared() -> None:
    base = example("baseline")
    check_comparable(base, example(shift=1.0))

    def refused(message: str, other: Measured) -> None:
        with pytest.raises(ExciseError, match=f"variant '.*' against 'baseline': {message}"):
            check_comparable(base, other)

    def changed(**changes: object) -> Measured:
        (one,) = example().measurements
        fields = {name: getattr(one, name) for name in one.__dataclass_fields__} | changes
        return Measured(variant="x", measurements=[Measurement(**fields)])

    refused("c4, wikipedia was measured of one of them only", example(name="c4"))
    refused("wikipedia: not the same items in the same order", changed(items=["1", "0", "2"]))
    refused("wikipedia: setting seqlen differs: 12 against 11", changed(settings={"seqlen": 12}))
    refused("wikipedia: other metrics", changed(metrics={}))
    refused("wikipedia: other metrics", changed(serial=False))


def test_a_metric_is_found_by_its_address() -> None:
    measured = example()
    one, metric = find(measured, "wikipedia.perplexity")
    assert (one, metric) == (measured.measurements[0], one.metrics["perplexity"])
    with pytest.raises(ExciseError, match=r"goal: unknown metric 'wikipedia.perplexty'. Did you mean 'wikipedia.perp"):
        find(measured, "wikipedia.perplexty", where="goal")
