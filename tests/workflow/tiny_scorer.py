"""A user's own scorer, as an experiment names it: python:tiny_scorer:scores."""

import hashlib


def scores(texts: list[str]) -> list[float]:
    """A number in [0, 1) that depends on the text and nothing else."""
    return [int(hashlib.sha256(text.encode()).hexdigest()[:8], 16) / 2**32 for text in texts]
