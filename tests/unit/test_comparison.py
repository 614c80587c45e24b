import itertools

import numpy as np
import pytest
from scipy.stats import permutation_test, t, wilcoxon

from excise import comparison
from excise.comparison import Change, holm, keeps, serial_error
from excise.errors import ExciseError
from excise.tasks.measurement import Metric, Values


def compare(before: Values, after: Values, **options: int) -> Change:
    """Two columns of plain means."""
    return comparison.compare(Metric.of(before), Metric.of(after), **options)


def shares(prompts: int, draws: int, rate: float, effect: float, seed: int) -> tuple[Values, Values]:
    """Toxic shares of prompts whose own rates differ; the variant lowers every rate by the same factor."""
    generator = np.random.default_rng(seed)
    rates = generator.beta(0.5, 0.5 * (1 - rate) / rate, prompts)
    after = rates * (1 + effect)
    return generator.binomial(draws, rates) / draws, generator.binomial(draws, after) / draws


def naive_bootstrap(before: Values, after: Values, *, resamples: int, seed: int) -> tuple[list[float], list[float]]:
    generator = np.random.default_rng(seed)
    differences, ratios = [], []
    for _ in range(resamples):
        drawn = [int(generator.integers(len(before))) for _ in before]
        b = sum(float(before[i]) for i in drawn) / len(drawn)
        a = sum(float(after[i]) for i in drawn) / len(drawn)
        differences.append(a - b)
        ratios.append(a / b - 1)
    return differences, ratios


def exact_p(differences: Values) -> float:
    """Two-sided sign-flip test over all sign patterns: twice the smaller tail, at most 1."""
    seen = sum(differences)
    means = [
        sum(s * d for s, d in zip(signs, differences, strict=True))
        for signs in itertools.product((1, -1), repeat=len(differences))
    ]
    tails = sum(m <= seen + 1e-12 for m in means), sum(m >= seen - 1e-12 for m in means)
    return float(min(1.0, 2 * min(tails) / len(means)))


def test_point_estimates() -> None:
    before, after = np.array([0.5, 1.0, 0.0, 0.5]), np.array([0.0, 0.5, 0.0, 1.0])
    change = compare(before, after, seed=0, resamples=500)
    assert (change.items, change.before, change.after) == (4, 0.5, 0.375)
    assert change.difference == -0.125
    assert change.relative == -0.25
    spread = float(np.std([-0.5, -0.5, 0.0, 0.5], ddof=1))
    assert change.detectable == pytest.approx((1.959964 + 0.841621) * spread / 2, rel=1e-5)


def test_interval_agrees_with_a_naive_loop() -> None:
    before, after = shares(60, 2, 0.3, -0.4, seed=3)
    change = compare(before, after, seed=0, resamples=20_000, comparisons=5)
    differences, ratios = naive_bootstrap(before, after, resamples=4_000, seed=11)
    assert change.interval == pytest.approx(np.quantile(differences, [0.025, 0.975]), abs=0.012)
    assert change.simultaneous_interval == pytest.approx(np.quantile(differences, [0.005, 0.995]), abs=0.02)
    assert change.relative_interval == pytest.approx(np.quantile(ratios, [0.025, 0.975]), abs=0.04)
    assert change.simultaneous_interval[0] <= change.interval[0] < change.interval[1] <= change.simultaneous_interval[1]


def test_interval_is_paired() -> None:
    """Prompts that differ widely but all change alike: the paired interval is narrow, an unpaired one would not be."""
    before = np.linspace(0.1, 0.9, 50)
    change = compare(before, before - 0.05, seed=0, resamples=500)
    assert change.interval == pytest.approx((-0.05, -0.05))
    assert change.improves("lower")


@pytest.mark.parametrize("seed", range(4))
def test_permutation_test_is_exact_for_few_prompts(seed: int) -> None:
    before, after = shares(9, 4, 0.4, -0.5, seed=seed)
    assert compare(before, after, seed=0).p == pytest.approx(exact_p(after - before))


def test_permutation_test_follows_its_formula_for_many_prompts() -> None:
    before, after = shares(40, 2, 0.3, -0.5, seed=2)
    differences = after - before
    p = compare(before, after, seed=0).p
    generator = np.random.default_rng(5)
    low = sum(
        float((generator.choice([-1, 1], differences.size) * differences).mean()) <= differences.mean() + 1e-12
        for _ in range(10_000)
    )
    assert p == pytest.approx(2 * (low + 1) / 10_001, abs=0.01)
    assert 0.2 < p / wilcoxon(differences, method="approx").pvalue < 5


def test_p_values_are_uniform_without_an_effect() -> None:
    p_values = []
    for seed in range(300):
        before, after = shares(40, 2, 0.3, 0.0, seed=seed)
        p_values.append(compare(before, after, seed=0, resamples=200).p)
    rejected = np.mean(np.array(p_values) <= 0.05)
    assert 0.01 < rejected < 0.09


@pytest.mark.parametrize(("prompts", "rate", "effect"), [(150, 0.2, -0.4), (60, 0.1, 0.0)])
def test_intervals_cover_the_truth(prompts: int, rate: float, effect: float) -> None:
    covered = []
    for seed in range(250):
        before, after = shares(prompts, 2, rate, effect, seed=seed)
        low, high = compare(before, after, seed=seed, resamples=300).interval
        covered.append(low <= rate * effect <= high)
    assert 0.90 <= np.mean(covered) <= 0.99


def test_nothing_changed() -> None:
    same = np.array([0.0, 0.5, 1.0, 0.0])
    change = compare(same, same, seed=0, resamples=200)
    assert change.interval == (0, 0)
    assert change.p == 1
    assert change.relative == 0
    assert not change.improves("lower")


def test_answers_of_which_none_changed_leave_open_what_was_not_seen() -> None:
    right = np.array([1.0] * 45 + [0.0] * 3)
    change = compare(right, right, seed=0, resamples=200, comparisons=5)
    low, high = change.interval
    # The largest share of changed answers that shows none among 48 with 2.5 % probability.
    assert (1 - high) ** 48 == pytest.approx(0.025)
    assert low == -high
    assert change.simultaneous_interval[1] > high
    assert change.relative_interval == pytest.approx((-high / 0.9375, high / 0.9375))
    assert (change.difference, change.p, change.way) == (0, 1, "none changed")
    assert not change.improves("higher")
    one = right.copy()
    one[0] = 0
    assert compare(right, one, seed=0, resamples=200).way == "resampling"
    many = np.ones(2_000)
    assert compare(many, many, seed=0).interval[1] == pytest.approx(0.00184, abs=1e-5)


def test_relative_change_where_the_baseline_is_zero() -> None:
    never = compare(np.zeros(6), np.full(6, 0.5), seed=0, resamples=200)
    assert never.relative is None
    assert never.relative_interval is None
    # Some resample misses the one prompt that was ever toxic: the ratio has no interval, the difference has.
    rarely = compare(np.array([1.0, 0, 0, 0]), np.array([0.5, 0, 0, 0]), seed=0, resamples=200)
    assert rarely.relative == -0.5
    assert rarely.relative_interval is None
    assert rarely.interval[0] < 0
    # A correlation, or a logit difference, may lie below zero: there is no share of that to keep.
    negative = compare(np.array([-1.0, -2, -3]), np.array([-3.0, -2, -4]), seed=0, resamples=200)
    assert negative.difference == -1
    assert negative.relative is None
    assert negative.relative_interval is None


def test_same_seed_same_numbers_whatever_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    before, after = shares(50, 2, 0.3, -0.4, seed=1)
    whole = compare(before, after, seed=7, resamples=1_000)
    assert compare(before, after, seed=7, resamples=1_000) == whole
    assert compare(before, after, seed=8, resamples=1_000).interval != whole.interval
    monkeypatch.setattr("excise.comparison._BATCH_VALUES", 2_000)
    assert compare(before, after, seed=7, resamples=1_000).interval == whole.interval


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        (np.zeros(3), np.zeros(4), "one value per item"),
        (np.zeros((2, 2)), np.zeros((2, 2)), "one value per item"),
        (np.array([0.0, np.nan]), np.zeros(2), "finite"),
    ],
)
def test_bad_input(before: Values, after: Values, message: str) -> None:
    with pytest.raises(ExciseError, match=message):
        compare(before, after, seed=0)


def test_one_item_has_no_interval_and_claims_nothing() -> None:
    change = compare(np.zeros(1), np.ones(1), seed=0)
    assert (change.difference, change.interval, change.p, change.way) == (1, None, None, "none")
    assert not change.improves("higher")
    assert not keeps(change, 0.5)


def test_figures_without_values_have_a_difference_only() -> None:
    known = Metric(figure=0.4, values=None), Metric(figure=0.5, values=None)
    change = comparison.compare(*known, seed=0)
    assert (change.items, change.difference, change.relative) == (0, pytest.approx(0.1), pytest.approx(0.25))
    assert change.interval is None


def test_a_metric_that_should_rise_improves_upwards_and_keeps_its_share() -> None:
    before, after = shares(400, 4, 0.5, -0.02, seed=1)
    change = compare(before, after, seed=0, resamples=2000)
    assert change.relative_interval is not None
    low = 1 + change.relative_interval[0]
    assert keeps(change, low)
    assert not keeps(change, low + 1e-9)
    assert compare(before, before + 0.1, seed=0).improves("higher")
    assert not compare(before, before + 0.1, seed=0).improves("lower")


def pairs(generator: np.random.Generator, items: int, change: float, *, same: bool) -> tuple[Metric, Metric]:
    """Losses over answers of different lengths, the same for both models or not."""
    lengths = generator.integers(5, 20, (2, items)).astype(np.float64)
    first, second = lengths[0], lengths[0] if same else lengths[1]
    level = generator.normal(2.5, 0.3, items)
    before = first * (level + generator.normal(0, 0.1, items))
    after = second * (level + change + generator.normal(0, 0.1, items))
    return Metric.of(before, first, aggregate="perplexity"), Metric.of(after, second, aggregate="perplexity")


@pytest.mark.parametrize("same", [True, False])
def test_perplexity_by_resampling_agrees_with_a_naive_loop(same: bool) -> None:
    before, after = pairs(np.random.default_rng(4), 40, 0.1, same=same)
    change = comparison.compare(before, after, seed=0, resamples=20_000)
    columns = [metric.sums() for metric in (before, after)]
    generator, found = np.random.default_rng(8), []
    for _ in range(4000):
        drawn = [int(generator.integers(40)) for _ in range(40)]
        one, two = (np.exp(sum(float(n[i]) for i in drawn) / sum(float(d[i]) for i in drawn)) for n, d in columns)
        found.append((two - one, two / one - 1))
    differences, ratios = zip(*found, strict=True)
    assert change.after == pytest.approx(np.exp(columns[1][0].sum() / columns[1][1].sum()))
    assert change.interval == pytest.approx(np.quantile(differences, [0.025, 0.975]), abs=0.1)
    assert change.relative_interval == pytest.approx(np.quantile(ratios, [0.025, 0.975]), abs=0.01)


@pytest.mark.parametrize("same", [True, False])
def test_p_values_of_ratios_are_uniform_without_an_effect(same: bool) -> None:
    generator = np.random.default_rng(2)
    found = [comparison.compare(*pairs(generator, 30, 0, same=same), seed=0, resamples=200).p for _ in range(300)]
    assert 0.01 < np.mean(np.array(found) <= 0.05) < 0.09


def test_a_ratio_may_have_denominators_of_any_sign() -> None:
    """Faithfulness: what a circuit restores over what the model has, pair by pair."""
    restored, whole = np.array([1.0, -0.5, 3.0, 2.0]), np.array([2.0, -1.0, 2.0, 1.0])
    metric = Metric.of(restored, whole, aggregate="ratio")
    assert metric.figure == 5.5 / 4
    change = comparison.compare(metric, metric, seed=0, resamples=100)
    assert change.interval is None  # some resample has denominators that sum to 0
    assert change.p == 1
    many = Metric.of(np.tile(restored, 20), np.tile(whole, 20), aggregate="ratio")
    assert comparison.compare(many, many, seed=0, resamples=100).interval == (0, 0)


def test_many_items_take_the_standard_error_which_the_bootstrap_agrees_with(monkeypatch: pytest.MonkeyPatch) -> None:
    before, after = shares(2_500, 1, 0.3, -0.1, seed=0)
    many = compare(before, after, seed=0)
    differences = after - before
    error = (sum((float(d) - differences.mean()) ** 2 for d in differences) / 2_499 / 2_500) ** 0.5
    half = float(t.ppf(0.975, 2_499)) * error
    assert many.way == "standard error"
    assert many.interval == pytest.approx((differences.mean() - half, differences.mean() + half), rel=1e-9)
    monkeypatch.setattr("excise.comparison.MANY", 3_000)
    drawn = compare(before, after, seed=0, resamples=2_000)
    assert drawn.way == "resampling"
    assert many.interval == pytest.approx(drawn.interval, abs=2e-3)
    assert many.relative_interval == pytest.approx(drawn.relative_interval, abs=0.01)
    assert many.p == pytest.approx(drawn.p, abs=0.02)


def windows(generator: np.random.Generator, count: int, correlation: float, change: float) -> tuple[Metric, Metric]:
    """Windows of a text whose change of loss is serially correlated (autoregressive); the last one is shorter."""
    tokens = np.array([511.0] * (count - 1) + [400.0])
    noise = np.zeros(count)
    noise[0] = generator.normal() / (1 - correlation**2) ** 0.5
    for at in range(1, count):
        noise[at] = correlation * noise[at - 1] + generator.normal()
    before = tokens * generator.normal(2.8, 0.4, count)
    after = before + tokens * (np.log1p(change) + 0.03 * noise)
    return tuple(Metric.of(nll, tokens, aggregate="perplexity") for nll in (before, after))  # type: ignore[return-value]


@pytest.mark.parametrize("count", [24, 64])
@pytest.mark.parametrize("correlation", [0.0, 0.2, 0.4])
def test_the_interval_of_perplexity_covers_where_neighbours_resemble_each_other(count: int, correlation: float) -> None:
    generator, covered = np.random.default_rng(3), []
    for _ in range(2_000):
        change = comparison.compare(*windows(generator, count, correlation, 0.04), serial=True, seed=0)
        assert change.relative_interval is not None
        low, high = change.relative_interval
        covered.append(low <= 0.04 <= high)
    assert np.mean(covered) >= 0.93
    assert np.mean(covered) <= 0.965


def test_intervals_that_take_windows_as_independent_are_too_narrow() -> None:
    """Why there is the serial way: the same windows, one correlation of 0.4."""
    generator, covered = np.random.default_rng(3), []
    for _ in range(300):
        before, after = windows(generator, 24, 0.4, 0.04)
        change = comparison.compare(before, after, seed=0, resamples=300)
        assert change.relative_interval is not None
        covered.append(change.relative_interval[0] <= 0.04 <= change.relative_interval[1])
    assert np.mean(covered) < 0.86


def test_serial_error_against_its_formula() -> None:
    series = np.random.default_rng(0).normal(size=24)
    weights = [
        sum(
            (2 / 24) ** 0.5 * np.cos(np.pi * wave * (place + 0.5) / 24) * float(value)
            for place, value in enumerate(series)
        )
        for wave in range(1, 5)  # 0.5 x 24^(2/3) = 4.2
    ]
    expected = (sum(weight**2 for weight in weights) / 4 / 24) ** 0.5
    assert serial_error(series) == (pytest.approx(expected, rel=1e-12), 4)
    assert serial_error(series[:2])[1] == 1
    assert serial_error(np.random.default_rng(0).normal(size=64))[1] == 8


def test_the_serial_interval_is_the_linearised_log_ratio() -> None:
    before, after = windows(np.random.default_rng(5), 24, 0.3, 0.04)
    change = comparison.compare(before, after, serial=True, seed=0)
    (n0, tokens), (n1, _) = before.sums(), after.sums()
    ratio = (n1 - n0).sum() / tokens.sum()
    error, freedom = serial_error(((n1 - n0) - ratio * tokens) / tokens.mean())
    half = float(t.ppf(0.975, freedom)) * error
    assert change.relative_interval == pytest.approx(np.expm1([ratio - half, ratio + half]), rel=1e-9)
    assert change.p == pytest.approx(2 * t.sf(abs(ratio) / error, freedom), rel=1e-9)
    back = comparison.compare(after, before, serial=True, seed=0).relative_interval
    assert back == pytest.approx([1 / (1 + end) - 1 for end in reversed(change.relative_interval or ())])
    same = comparison.compare(before, before, serial=True, seed=0)
    assert (same.relative_interval, same.p) == ((0, 0), 1)
    assert comparison.compare(before.take([0]), after.take([0]), serial=True, seed=0).relative_interval is None


def test_holm_known_case() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([0.02]) == [0.02]
    assert holm([]) == []


def test_holm_rejects_what_the_step_down_procedure_rejects() -> None:
    generator = np.random.default_rng(0)
    for _ in range(200):
        p_values = (generator.random(6) ** 3).tolist()
        rejected = set()
        for step, index in enumerate(sorted(range(6), key=lambda i: p_values[i])):
            if p_values[index] > 0.05 / (6 - step):
                break
            rejected.add(index)
        assert {i for i, p in enumerate(holm(p_values)) if p <= 0.05} == rejected


@pytest.mark.parametrize("items", [3, 9, 40])
def test_p_is_that_of_exchanging_values_within_items(items: int) -> None:
    """Exactly where all patterns of signs are few, else within the error of drawing them."""
    generator = np.random.default_rng(items)
    values = np.round(generator.normal(0.3, 1, items), 1)  # ties
    found = comparison.sign_flip_p(values, seed=0, resamples=4000)
    drawn = permutation_test(
        (values,), np.mean, permutation_type="samples", n_resamples=20_000, rng=np.random.default_rng(0)
    )
    assert found == pytest.approx(drawn.pvalue, abs=1e-12 if 2**items <= 4000 else 0.03)
    assert comparison.sign_flip_p(values, seed=0, resamples=4000) == found
