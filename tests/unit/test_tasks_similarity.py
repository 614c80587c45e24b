"""Correlations as means over pairs: their values, and the standard errors that they give."""

import numpy as np
import pytest
import scipy.stats
import torch

from excise.data.collection_formats import pairs
from excise.data.collections import checked
from excise.data.parts import divide_pairs
from excise.errors import ExciseError
from excise.tasks.similarity import measure, pearson, spearman


def drawn(count, seed=0, ties=True):
    generator = np.random.default_rng(seed)
    x = generator.normal(size=count)
    y = 0.8 * x + 0.6 * generator.normal(size=count)
    return x, np.clip(np.round(y * 2) / 2, -2, 2) if ties else y**3


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize(("values", "expected"), [(pearson, scipy.stats.pearsonr), (spearman, scipy.stats.spearmanr)])
def test_the_mean_is_the_correlation_and_the_spread_its_error(values, expected, ties):
    x, y = drawn(1500, ties=ties)
    found = values(x, y)
    assert found.mean() == pytest.approx(expected(x, y)[0], abs=1e-12)
    generator = np.random.default_rng(1)
    resampled = [expected(x[at], y[at])[0] for at in generator.integers(len(x), size=(1000, len(x)))]
    assert found.std() / len(x) ** 0.5 == pytest.approx(np.std(resampled), rel=0.07)


def test_spearman_influence_is_its_definition():
    """The change of the functional E[F(X) G(Y)] when a pair gets more weight, with F and G those of all pairs."""
    x, y = drawn(40)
    n = len(x)

    def at_most(values, here):
        return sum((value < here) + (value == here) / 2 for value in values) / n

    f, g = ([at_most(values, here) - 0.5 for here in values] for values in (x, y))
    scale = (np.mean(np.square(f)) * np.mean(np.square(g))) ** 0.5
    parts = []
    for i in range(n):
        from_x = sum(((x[i] < x[j]) + (x[i] == x[j]) / 2) * g[j] for j in range(n)) / n
        from_y = sum(((y[i] < y[j]) + (y[i] == y[j]) / 2) * f[j] for j in range(n)) / n
        parts.append((f[i] * g[i] + from_x + from_y) / scale)
    expected = np.array(parts) - np.mean(parts) + scipy.stats.spearmanr(x, y)[0]
    assert spearman(x, y) == pytest.approx(expected, abs=1e-12)


def test_what_has_no_correlation_is_refused():
    for values in (pearson, spearman):
        with pytest.raises(ExciseError, match="needs three"):
            values(np.ones(2), np.ones(2))
        with pytest.raises(ExciseError, match="same cosine, or the same label"):
            values(np.arange(4.0), np.ones(4))


def test_pairs_are_read_and_whole_pairs_calibrate_or_judge(tmp_path):
    path = tmp_path / "valid.json"
    lines = [f'{{"sentence1": "a {n}", "sentence2": "b {n % 3}", "label": {n / 4}}}' for n in range(12)]
    path.write_text("\n".join(lines))
    found = checked(pairs(path, split=""), judged=False)
    assert (len(found.documents), len(found.pairs), found.counts["pairs"]) == (15, 12, 12)  # b 0, b 1, b 2 come often
    calibration, judged, kept = divide_pairs(found.documents, found.pairs, calibration=8, seed=0)
    assert len(kept) == 8
    used = {row[side] for row in kept for side in ("first", "second")}
    assert {row["id"] for row in judged} == used
    assert calibration
    assert not {row["id"] for row in calibration} & used
    with pytest.raises(ExciseError, match="too few"):
        divide_pairs(found.documents, found.pairs, calibration=24, seed=0)

    vectors = torch.nn.functional.normalize(torch.randn(len(judged), 4, generator=torch.Generator().manual_seed(0)))
    both = {"sentences": vectors}
    main, fidelity = measure("own", "Own", both, both, judged, kept, {})
    place = {row["id"]: number for number, row in enumerate(judged)}
    cosine = [float(vectors[place[row["first"]]].double() @ vectors[place[row["second"]]].double()) for row in kept]
    expected = scipy.stats.spearmanr(cosine, [row["similarity"] for row in kept])[0]
    assert main.metrics["spearman"].figure == pytest.approx(expected, abs=1e-9)
    assert fidelity.metrics["cosine"].figure == pytest.approx(1)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"sentence1": "a", "sentence2": "b", "label": "x"}', "is not a number"),
        ('{"sentence1": "a", "label": 1}', "no field 'sentence2'"),
        ('{"sentence1": "a", "sentence2": "", "label": 1}', "a sentence is empty"),
        ('{"sentence1": "a", "sentence2": "b", "label": 1}', "all labelled alike"),
    ],
)
def test_pairs_that_make_no_sense_are_refused(tmp_path, text, said):
    (tmp_path / "valid.json").write_text(text)
    with pytest.raises(ExciseError, match=said):
        pairs(tmp_path / "valid.json", split="")
