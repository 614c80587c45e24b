import hashlib
import itertools

import numpy as np
import pytest
import torch
from scipy import stats

from excise.evaluation.sampling import gumbel, sample, stream

MASK = 2**64 - 1


def naive_gumbel(word: int, token: int) -> float:
    """SplitMix64's output number ``token`` from the state ``word``, as noise."""
    state = (word + (token + 1) * 0x9E3779B97F4A7C15) & MASK
    state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & MASK
    state ^= state >> 31
    return float(-np.log(-np.log(((state >> 11) + 0.5) / 2**53)))


def naive_sample(logits: list[float], word: int, temperature: float, top_p: float) -> int:
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
    return max(nucleus, key=lambda token: np.log(weights[token]) + naive_gumbel(word, token))


def some_words(count: int, seed: int = 0) -> np.ndarray:
    return stream(seed, "words", 0, count)


def test_stream_is_the_documented_function_of_seed_prompt_and_draw() -> None:
    digest = hashlib.shake_256(b'[7, "prompt 1", 3]').digest(16)
    expected = [int.from_bytes(digest[at : at + 8], "little") for at in (0, 8)]
    assert stream(7, "prompt 1", 3, 2).tolist() == expected


def test_longer_stream_starts_with_the_shorter_one() -> None:
    assert stream(0, "a", 0, 50)[:20].tolist() == stream(0, "a", 0, 20).tolist()


def test_noise_is_the_documented_function_of_word_and_token() -> None:
    words, tokens = some_words(6), np.array([[0, 1, 5, 49_151]] * 6)
    expected = [[naive_gumbel(word, token) for token in (0, 1, 5, 49_151)] for word in words.tolist()]
    assert gumbel(words, tokens).tolist() == expected


def test_noise_differs_by_seed_prompt_draw_position_and_token_and_is_gumbel() -> None:
    keys = list(itertools.product((0, 1), ("a", "b", 1, "1"), (0, 1)))
    tables = np.stack([gumbel(stream(*key, 20), np.arange(40)[None].repeat(20, 0)).ravel() for key in keys])
    assert len(np.unique(tables)) == tables.size
    assert stats.kstest(tables.ravel(), "gumbel_r").pvalue > 0.01
    assert np.abs(np.corrcoef(tables) - np.eye(len(keys))).max() < 0.15
    by_token = tables.reshape(len(keys) * 20, 40)
    assert np.abs(np.corrcoef(by_token.T) - np.eye(40)).max() < 0.25


@pytest.mark.parametrize("temperature", [0.5, 1.0, 1.7])
@pytest.mark.parametrize("top_p", [1e-9, 0.3, 0.9, 0.999, 1.0])
@pytest.mark.parametrize("spread", [0.0, 0.05, 1.0, 8.0])
def test_equals_sorting_everything(spread: float, top_p: float, temperature: float) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = spread * torch.randn(24, 61, generator=generator, dtype=torch.float64)
    words = some_words(24)
    expected = [
        naive_sample(row.tolist(), v, temperature, top_p) for row, v in zip(logits, words.tolist(), strict=True)
    ]
    for first_k in (1, 2, 7, 61, 512):
        found = sample(logits, words, temperature=temperature, top_p=top_p, first_k=first_k)
        assert found.tolist() == expected, first_k


def test_ties_go_to_the_lower_token_whatever_k() -> None:
    generator = torch.Generator().manual_seed(1)
    logits = torch.randint(0, 4, (200, 90), generator=generator).double()  # ties everywhere, also at every border
    words = some_words(200)
    expected = [naive_sample(row.tolist(), v, 1.0, 0.8) for row, v in zip(logits, words.tolist(), strict=True)]
    for first_k in (1, 3, 20, 90):
        assert sample(logits, words, temperature=1.0, top_p=0.8, first_k=first_k).tolist() == expected


def test_bfloat16_logits_are_sampled_from_in_float32() -> None:
    logits = torch.randn(30, 200, generator=torch.Generator().manual_seed(2)).bfloat16()
    words = some_words(30)
    expected = [naive_sample(r.tolist(), v, 1.0, 0.9) for r, v in zip(logits.double(), words.tolist(), strict=True)]
    assert sample(logits, words, temperature=1.0, top_p=0.9, first_k=4).tolist() == expected


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 0.9), (0.7, 0.9), (1.0, 1.0), (1.5, 0.5)])
def test_distribution_is_the_nucleus_and_nothing_else(temperature: float, top_p: float) -> None:
    logits = torch.tensor([2.0, 1.4, 1.1, 0.3, 0.2, -0.5, -1.0, -3.0], dtype=torch.float64)
    probabilities = (logits / temperature).softmax(-1).numpy()
    size = int((np.cumsum(probabilities) < top_p - 1e-12).sum()) + 1  # they are sorted already
    expected = probabilities[:size] / probabilities[:size].sum()
    draws = 20_000
    words = stream(5, f"{temperature} {top_p}", 0, draws)
    tokens = sample(logits.expand(draws, -1), words, temperature=temperature, top_p=top_p).numpy()
    counts = np.bincount(tokens, minlength=8)
    assert counts[size:].sum() == 0
    assert stats.chisquare(counts[:size], expected * draws).pvalue > 0.01


@pytest.mark.parametrize("change", [0.0, 0.01, 0.3, 3.0])
def test_similar_distributions_draw_the_same_tokens(change: float) -> None:
    """As often as the Gumbel coupling promises: sum over tokens of 1 / sum_j max(p_j / p_i, q_j / q_i)."""
    generator = torch.Generator().manual_seed(4)
    first = torch.randn(30, generator=generator, dtype=torch.float64)
    second = first + change * torch.randn(30, generator=generator, dtype=torch.float64)
    p, q, draws = first.softmax(-1), second.softmax(-1), 20_000
    words = some_words(draws)
    tokens = [sample(row.expand(draws, -1), words, temperature=1.0, top_p=1.0) for row in (first, second)]
    agree = float((tokens[0] == tokens[1]).double().mean())
    promised = sum(1 / sum(max(p[j] / p[i], q[j] / q[i]) for j in range(30)) for i in range(30))
    assert agree == pytest.approx(float(promised), abs=4 * 0.5 / draws**0.5)
    distance = float((p - q).abs().sum() / 2)
    assert (1 - distance) / (1 + distance) - 0.015 <= agree <= 1 - distance + 0.015
