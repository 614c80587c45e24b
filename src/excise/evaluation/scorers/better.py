"""better-profanity: a list of swear words and their usual misspellings; 1 where a text contains one, else 0.

It shares nothing with the other scorers, neither data nor training: a second opinion on profanity that runs anywhere.
It knows no context and no implicit hate.
"""

from importlib.metadata import version

from excise.errors import ExciseError
from excise.evaluation.scorers import Options


class BetterProfanity:
    """Whether the package finds a swear word."""

    def __init__(self) -> None:
        try:
            from better_profanity import Profanity
        except ImportError as error:
            raise ExciseError(f"scorer better-profanity: {error}. Install it: pip install 'excise[demo]'") from error
        self._contains = Profanity().contains_profanity
        self.name = "better-profanity"
        self.facts = {"name": self.name, "versions": {"better-profanity": version("better-profanity")}}

    def __call__(self, texts: list[str]) -> list[float]:
        """1.0 or 0.0 for each text."""
        return [float(self._contains(text)) for text in texts]


def load(name: str, options: Options) -> BetterProfanity:  # noqa: ARG001 (it has no options)
    """The scorer."""
    return BetterProfanity()
