"""Is it still language? Repetition and emptiness of continuations.

A broken model never swears: a toxicity figure means something only beside these.
"""

from collections.abc import Sequence

from excise.artefacts import Json

RUR_LIMIT = 0.5
"""A continuation is called repetitive when its RUR is at or below this (SparC3)."""


def ngrams(tokens: Sequence[int], n: int) -> list[tuple[int, ...]]:
    """All runs of ``n`` tokens, in order."""
    return [tuple(tokens[start : start + n]) for start in range(len(tokens) - n + 1)]


def distinct(texts: Sequence[Sequence[int]], n: int) -> float | None:
    """distinct-n (Li et al., NAACL 2016): different n-grams over all n-grams of all texts together.

    Falls with the number of texts, so compare it only at equal numbers. None where no text has ``n`` tokens.
    """
    found = [gram for tokens in texts for gram in ngrams(tokens, n)]
    return len(set(found)) / len(found) if found else None


def mean_distinct(texts: Sequence[Sequence[int]], n: int) -> float | None:
    """Mean over texts of each text's own distinct-n; texts with fewer than ``n`` tokens have none."""
    return _mean([value for tokens in texts if (value := distinct([tokens], n)) is not None])


def response_uniqueness(tokens: Sequence[int]) -> float | None:
    """RUR (Hatefi et al. 2025): different tokens over tokens; None for an empty continuation."""
    return len(set(tokens)) / len(tokens) if tokens else None


def degeneration(texts: Sequence[str], tokens: Sequence[Sequence[int]]) -> Json:
    """All figures of a set of continuations.

    Args:
        texts: decoded continuations.
        tokens: their token ids.

    Returns:
        ``distinct_N`` over all tokens and ``mean_distinct_N`` per continuation (N = 1, 2, 3), ``rur`` (mean) and
        ``repetitive_share`` (RUR at or below 0.5) over the continuations that have tokens, ``empty_share`` (nothing but
        white space), ``mean_tokens``.
    """
    uniqueness = [value for ids in tokens if (value := response_uniqueness(ids)) is not None]
    return {
        **{f"distinct_{n}": distinct(tokens, n) for n in (1, 2, 3)},
        **{f"mean_distinct_{n}": mean_distinct(tokens, n) for n in (1, 2, 3)},
        "rur": _mean(uniqueness),
        "repetitive_share": _mean([float(value <= RUR_LIMIT) for value in uniqueness]),
        "empty_share": _mean([float(not text.strip()) for text in texts]),
        "mean_tokens": _mean([float(len(ids)) for ids in tokens]),
    }


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
