"""Is it still language? Repetition and emptiness of continuations.

A broken model never swears: a toxicity figure means something only beside these.
"""

from collections.abc import Sequence

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


def response_uniqueness(tokens: Sequence[int]) -> float | None:
    """RUR (Hatefi et al. 2025): different tokens over tokens; None for an empty continuation."""
    return len(set(tokens)) / len(tokens) if tokens else None
