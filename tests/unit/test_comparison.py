import itertools

import numpy as np
import pytest
from scipy.stats import ttest_rel, wilcoxon

from excise.comparison import Values, compare, holm, perplexity_interval
from excise.errors import ExciseError


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
    assert (change.prompts, change.before, change.after) == (4, 0.5, 0.375)
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
    assert change.reduces


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
    assert not change.reduces


def test_relative_change_where_the_baseline_is_zero() -> None:
    never = compare(np.zeros(6), np.full(6, 0.5), seed=0, resamples=200)
    assert never.relative is None
    assert never.relative_interval is None
    # Some resample misses the one prompt that was ever toxic: the ratio has no interval, the difference has.
    rarely = compare(np.array([1.0, 0, 0, 0]), np.array([0.5, 0, 0, 0]), seed=0, resamples=200)
    assert rarely.relative == -0.5
    assert rarely.relative_interval is None
    assert rarely.interval[0] < 0


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
        (np.zeros(3), np.zeros(4), "one value per prompt"),
        (np.zeros((2, 2)), np.zeros((2, 2)), "one value per prompt"),
        (np.zeros(1), np.zeros(1), "at least 2"),
        (np.array([0.0, np.nan]), np.zeros(2), "finite"),
    ],
)
def test_bad_input(before: Values, after: Values, message: str) -> None:
    with pytest.raises(ExciseError, match=message):
        compare(before, after, seed=0)


def losses(generator: np.random.Generator, tokens: Values, change: float) -> tuple[Values, Values]:
    """Sums of the loss over windows that differ much from each other, and whose change differs a little."""
    level = generator.normal(2.8, 0.4, len(tokens))
    return tokens * level, tokens * (level + np.log1p(change) + generator.normal(0, 0.03, len(tokens)))


def test_perplexity_interval_of_equal_windows_is_the_paired_t_interval() -> None:
    tokens = np.full(12, 511.0)
    before, after = losses(np.random.default_rng(0), tokens, 0.04)
    expected = ttest_rel(after / tokens, before / tokens).confidence_interval(0.95)
    found = perplexity_interval(before, after, tokens)
    assert found == pytest.approx(np.expm1([expected.low, expected.high]), rel=1e-9)
    assert perplexity_interval(after, before, tokens) == pytest.approx([1 / (1 + x) - 1 for x in reversed(found)])
    assert perplexity_interval(before[:1], after[:1], tokens[:1]) is None
    with pytest.raises(ExciseError, match="11 and 12 windows"):
        perplexity_interval(before[1:], after, tokens)


@pytest.mark.parametrize("last", [511.0, 100.0], ids=["equal windows", "a short window at the end"])
def test_perplexity_interval_covers_as_it_says(last: float) -> None:
    generator = np.random.default_rng(1)
    tokens = np.array([511.0] * 11 + [last])
    found = [perplexity_interval(*losses(generator, tokens, 0.04), tokens) for _ in range(2000)]
    assert np.mean([low <= 0.04 <= high for low, high in filter(None, found)]) == pytest.approx(0.95, abs=0.015)


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
