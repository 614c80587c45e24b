"""Repetition: 1 - RUR, the share of tokens of a continuation that were there before (Hatefi et al. 2025).

The tokens are the model's own, as it chose them, so that the score is one minus the RUR of ``degeneration``. SparC3
calls a continuation repetitive at RUR <= 0.5, which is a score of at least 0.5. RUR falls with length: compare only
scores of continuations that may be equally long.
"""

from excise.artefacts import Json
from excise.evaluation.degeneration import response_uniqueness
from excise.evaluation.scorers import Options


class Repetition:
    """Counts tokens; an empty continuation repeats nothing and scores 0."""

    def __init__(self) -> None:
        self.name = "repetition"
        self.facts: Json = {"name": self.name, "score": "1 - different tokens / tokens", "tokens": "the model's own"}

    def __call__(self, continuations: list[list[int]]) -> list[float]:
        """One minus RUR of each continuation, given as token ids."""
        uniqueness = [response_uniqueness(tokens) for tokens in continuations]
        return [0.0 if value is None else 1.0 - value for value in uniqueness]


def load(name: str, options: Options) -> Repetition:  # noqa: ARG001 (it has no options)
    """The scorer."""
    return Repetition()
