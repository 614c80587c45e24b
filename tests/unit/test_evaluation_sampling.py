import hashlib
import itertools

import numpy as np
import pytest
import torch
from scipy import stats

from excise.evaluation.sampling import sample, uniforms


def naive_sample(logits: list[float], u: float, temperature: float, top_p: float) -> int:
    """Nucleus sampling from its definition: sort everything, in float64."""
    scaled = [value / temperature for value in logits]
    weights = [np.exp(value - max(scaled)) for value in scaled]
    order = sorted(range(len(logits)), key=lambda token: (-scaled[token], token))
    nucleus, mass = [], 0.0
    for token in order:
        nucleus.append(token)
        mass += weights[token] / sum(weights)
        if mass >= top_p:
            break
    reached = 0.0
    for token in nucleus:
        reached += weights[token] / sum(weights)
        if reached > u * mass:
            return token
    return nucleus[-1]


def test_stream_is_the_documented_function_of_seed_prompt_and_draw() -> None:
    digest = hashlib.shake_256(b'[7, "prompt 1", 3]').digest(16)
    expected = [(int.from_bytes(digest[at : at + 8], "little") >> 11) / 2**53 for at in (0, 8)]
    assert uniforms(7, "prompt 1", 3, 2).tolist() == expected


def test_longer_stream_starts_with_the_shorter_one() -> None:
    assert uniforms(0, "a", 0, 50)[:20].tolist() == uniforms(0, "a", 0, 20).tolist()


def test_streams_differ_by_seed_prompt_and_draw_and_are_uniform() -> None:
    keys = list(itertools.product((0, 1), ("a", "b", 1, "1"), (0, 1, 2)))
    tables = np.stack([uniforms(*key, 400) for key in keys])
    assert len(np.unique(tables)) == tables.size
    assert tables.min() >= 0
    assert tables.max() < 1
    assert stats.kstest(tables.ravel(), "uniform").pvalue > 0.01
    assert np.abs(np.corrcoef(tables) - np.eye(len(keys))).max() < 0.25


@pytest.mark.parametrize("temperature", [0.5, 1.0, 1.7])
@pytest.mark.parametrize("top_p", [1e-9, 0.3, 0.9, 0.999, 1.0])
@pytest.mark.parametrize("spread", [0.0, 0.05, 1.0, 8.0])
def test_equals_sorting_everything(spread: float, top_p: float, temperature: float) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = spread * torch.randn(24, 61, generator=generator, dtype=torch.float64)
    u = torch.rand(24, generator=generator, dtype=torch.float64)
    expected = [naive_sample(row.tolist(), v, temperature, top_p) for row, v in zip(logits, u.tolist(), strict=True)]
    for first_k in (1, 2, 7, 61, 512):
        found = sample(logits, u, temperature=temperature, top_p=top_p, first_k=first_k)
        assert found.tolist() == expected, first_k


def test_ties_go_to_the_lower_token_whatever_k() -> None:
    generator = torch.Generator().manual_seed(1)
    logits = torch.randint(0, 4, (200, 90), generator=generator).double()  # ties everywhere, also at every border
    u = torch.rand(200, generator=generator, dtype=torch.float64)
    expected = [naive_sample(row.tolist(), v, 1.0, 0.8) for row, v in zip(logits, u.tolist(), strict=True)]
    for first_k in (1, 3, 20, 90):
        assert sample(logits, u, temperature=1.0, top_p=0.8, first_k=first_k).tolist() == expected


def test_bfloat16_logits_are_sampled_from_in_float32() -> None:
    logits = torch.randn(30, 200, generator=torch.Generator().manual_seed(2)).bfloat16()
    u = torch.rand(30, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    expected = [naive_sample(r.tolist(), v, 1.0, 0.9) for r, v in zip(logits.double(), u.tolist(), strict=True)]
    assert sample(logits, u, temperature=1.0, top_p=0.9, first_k=4).tolist() == expected


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 0.9), (0.7, 0.9), (1.0, 1.0), (1.5, 0.5)])
def test_distribution_is_the_nucleus_and_nothing_else(temperature: float, top_p: float) -> None:
    logits = torch.tensor([2.0, 1.4, 1.1, 0.3, 0.2, -0.5, -1.0, -3.0], dtype=torch.float64)
    probabilities = (logits / temperature).softmax(-1).numpy()
    size = int((np.cumsum(probabilities) < top_p - 1e-12).sum()) + 1  # they are sorted already
    expected = probabilities[:size] / probabilities[:size].sum()
    draws = 20_000
    u = torch.from_numpy(uniforms(5, f"{temperature} {top_p}", 0, draws))
    tokens = sample(logits.expand(draws, -1), u, temperature=temperature, top_p=top_p).numpy()
    counts = np.bincount(tokens, minlength=8)
    assert counts[size:].sum() == 0
    assert stats.chisquare(counts[:size], expected * draws).pvalue > 0.01
