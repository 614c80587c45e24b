"""The trust region against naive loops, and its promises on a tiny model."""

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.families import samples, tiny
from excise.artefacts import Array
from excise.attribution import Options, trust_region
from excise.attribution.batches import Sample, pad
from excise.errors import ExciseError
from excise.models.parts import output_projections

GATES = [(0, 3), (1, 0), (2, 23)]


def values(model: Any, batch: Any, **options: Any) -> dict[str, torch.Tensor]:
    with trust_region.measuring(model, Options(**options)) as measure:
        return measure(batch)


def log_p(model: Any, sample: Sample, gates: torch.Tensor | None = None) -> torch.Tensor:
    """log p of every token of the vocabulary at each predicted position, under gates 1 + d, ``[positions, vocabulary]``."""
    handles = []
    if gates is not None:
        for scale, projection in zip(1 + gates, output_projections(model), strict=True):
            handles.append(projection.register_forward_pre_hook(lambda _, inputs, scale=scale: (inputs[0] * scale,)))
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([sample.input_ids])).logits[0].double()
    for handle in handles:
        handle.remove()
    return logits[sample.target_start - 1 : -1].log_softmax(-1)


def naive_draw(model: Any, sample: Sample) -> list[int]:
    chances = trust_region.uniforms(pad([sample]))[0, sample.target_start :].tolist()
    tokens = []
    for row, chance in zip(log_p(model, sample).exp().tolist(), chances, strict=True):
        mass, total = 0.0, sum(row)
        for token, probability in enumerate(row):
            mass += probability
            if mass > chance * total:
                tokens.append(token)
                break
    return tokens


@pytest.mark.parametrize("family", ["llama", "gemma2", "opt"])
def test_gate_gradients_against_finite_differences(family: str) -> None:
    """Of the log-probability of the text's own tokens, and of tokens that a naive loop draws from the model."""
    model = tiny(family)
    found = values(model, pad(samples()))
    for row, sample in enumerate(samples()):
        own = list(sample.input_ids[sample.target_start :])
        assert found["predicted"][row] == len(own)
        for name, tokens in (("own", own), ("drawn", naive_draw(model, sample))):
            for gate in GATES:
                gates, change = torch.zeros(3, 24, dtype=torch.float64), 1e-3
                sums = []
                for gates[gate] in (change, -change):
                    rows = log_p(model, sample, gates)
                    sums.append(sum(float(rows[position, token]) for position, token in enumerate(tokens)))
                numeric = (sums[0] - sums[1]) / (2 * change)
                assert numeric == pytest.approx(found[name][row][gate].item(), rel=5e-3, abs=5e-3)


def test_neither_batch_chunk_nor_recomputation_changes_a_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny("llama")
    together = values(model, pad(samples()))
    again = values(model, pad(samples()), recompute=True)
    monkeypatch.setattr(trust_region, "CHUNK", 3)
    for row, sample in enumerate(samples()):
        alone = values(model, pad([sample]))
        for name in ("own", "drawn"):
            torch.testing.assert_close(alone[name][0], together[name][row])
            torch.testing.assert_close(again[name], together[name])


def test_the_predicted_cost_is_the_measured_one() -> None:
    """d'Fd / 2, with F from drawn tokens, is the Kullback-Leibler divergence that small gates make."""
    model, sample = tiny("llama"), samples()[0]
    copies = [dataclasses.replace(sample, id=f"copy {number}") for number in range(1500)]
    drawn = values(model, pad(copies))["drawn"].flatten(1).double()
    gates = torch.randn(3, 24, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 0.01
    predicted = float((drawn @ gates.flatten()).square().mean() / 2)
    before, after = log_p(model, sample), log_p(model, sample, gates)
    measured = float((before.exp() * (before - after)).sum())
    assert predicted == pytest.approx(measured, rel=0.1)


def retained(windows: int = 6, layers: int = 2, width: int = 15, seed: int = 0) -> dict[str, Array]:
    generator = np.random.default_rng(seed)
    scale = generator.random((layers, width)) + 0.1
    return {
        "own_rows": (generator.normal(size=(windows, layers, width)) * scale + 1).astype(np.float32),
        "drawn_rows": (generator.normal(size=(windows, layers, width)) * scale).astype(np.float32),
        "predicted_rows": np.full((windows, 1, 1), 7.0),
    }


def benefit(seed: int = 1) -> Array:
    return np.random.default_rng(seed).normal(size=(2, 15))


def naive_fisher(scores: dict[str, Array]) -> list[list[float]]:
    own, drawn = (scores[name].reshape(len(scores[name]), -1).tolist() for name in ("own_rows", "drawn_rows"))
    windows, units = len(own), len(own[0])
    tokens = sum(scores["predicted_rows"].ravel().tolist())
    mean = [sum(row[i] for row in own) / windows for i in range(units)]
    rows = drawn + [[row[i] - mean[i] for i in range(units)] for row in own]
    return [[sum(r[i] * r[j] for r in rows) / (2 * tokens) for j in range(units)] for i in range(units)]


@pytest.mark.parametrize(("bounds", "count"), [((-1, 2), 12), ((0, 1), 6), ((-0.5, 1), 5), ((1, 3), 4)])
def test_step_against_a_naive_loop(bounds: tuple[float, float], count: int) -> None:
    scores, b = retained(), benefit()
    rows, metric_found = trust_region.fisher(scores)
    found = trust_region.step(b, rows, metric_found, count=count, budget=0.03, bounds=bounds)

    fisher, wanted = naive_fisher(scores), b.ravel().tolist()
    diagonal = [fisher[i][i] for i in range(30)]
    median = sum(sorted(diagonal)[14:16]) / 2
    metric = [value + median for value in diagonal]
    assert metric_found.ravel().tolist() == pytest.approx(metric, rel=1e-5)
    zero, efficiency = trust_region.contrast(scores, {"score": b})
    assert not zero.any()
    assert efficiency.ravel().tolist() == pytest.approx([wanted[i] / math.sqrt(metric[i]) for i in range(30)], rel=1e-5)
    low, high = bounds[0] - 1, bounds[1] - 1
    movable = [i for i in range(30) if (wanted[i] > 0 and low < 0) or (wanted[i] < 0 and high > 0)]
    kept = sorted(movable, key=lambda i: -abs(wanted[i]) / math.sqrt(metric[i]))[:count]
    assert found.units.tolist() == kept

    def moved(strength: float) -> list[float]:
        return [min(max(-wanted[i] / (strength * metric[i]), low), high) for i in kept]

    def cost(d: list[float]) -> float:
        return sum(d[i] * fisher[kept[i]][kept[j]] * d[j] for i in range(count) for j in range(count)) / 2

    weak, strong, allowed = 1e9, 1e-9, 0.9 * math.log(1.03)
    for _ in range(200):
        middle = math.sqrt(weak * strong)
        weak, strong = (middle, strong) if cost(moved(middle)) <= allowed else (weak, middle)
    expected = moved(weak)
    assert (found.scales - 1).tolist() == pytest.approx(expected, rel=1e-5, abs=1e-7)
    assert found.cost == pytest.approx(cost(expected), rel=1e-5) == pytest.approx(allowed, rel=1e-5)
    assert found.gain == pytest.approx(-sum(wanted[i] * d for i, d in zip(kept, expected, strict=True)), rel=1e-5)
    assert bounds[0] <= found.scales.min()
    assert found.scales.max() <= bounds[1]


def test_no_budget_no_step_and_a_vast_one_ends_at_the_bounds() -> None:
    fisher = trust_region.fisher(retained())
    sizes = []
    for budget in (1e-12, 1e-6, 1e-3):
        found = trust_region.step(benefit(), *fisher, count=9, budget=budget)
        assert found.cost == pytest.approx(0.9 * budget, rel=1e-3)
        sizes.append(float(np.abs(found.scales - 1).max()))
    assert sizes[0] < 1e-5 < sizes[1] < sizes[2]
    most = trust_region.step(benefit(), *fisher, count=9, budget=1e30)
    assert {round(scale, 9) for scale in most.scales.tolist()} == {-1.0, 2.0}
    assert most.cost < math.log1p(1e30)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bounds": (1.5, 2)}, "1 .untouched. must lie between"),
        ({"bounds": (1, 1)}, "must lie between"),
        ({"bounds": (-math.inf, 2)}, "must lie between"),
        ({"budget": 0}, "a share above 0"),
        ({"count": 31}, "between 1 and 30"),
        ({"count": 0}, "between 1 and"),
    ],
)
def test_impossible_steps_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ExciseError, match=message):
        trust_region.step(benefit(), *trust_region.fisher(retained()), **({"count": 9, "budget": 0.03} | change))


def test_too_little_text_to_retain_is_refused() -> None:
    with pytest.raises(ExciseError, match="two or more"):
        trust_region.fisher(retained(windows=1))
    silent = {name: np.zeros_like(value) for name, value in retained().items()} | {"predicted_rows": np.ones((6, 1, 1))}
    with pytest.raises(ExciseError, match="no gradient"):
        trust_region.fisher(silent)
