"""alt-profanity-check: a linear bag-of-words model that carries its weights.

It reacts to profanity more than to implicit hate. Importing the package unpickles its own model files: they come with
the package, so pin its version.
"""

import warnings
from importlib.metadata import version
from importlib.resources import files

from excise.errors import ExciseError
from excise.evaluation.scorers import Options


class AltProfanityCheck:
    """Probability of profanity as the package predicts it."""

    def __init__(self) -> None:
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="Trying to unpickle estimator")
                import profanity_check
        except ImportError as error:
            raise ExciseError(f"scorer alt-profanity-check: {error}. Install it: pip install 'excise[demo]'") from error
        self._predict = profanity_check.predict_prob
        self.name = "alt-profanity-check"
        folder = files("profanity_check").joinpath("data")
        self.facts = {
            "name": self.name,
            "versions": {package: version(package) for package in ("alt-profanity-check", "scikit-learn")},
            "sha256": {
                name: _sha256(folder.joinpath(name).read_bytes()) for name in ("model.joblib", "vectorizer.joblib")
            },
        }

    def __call__(self, texts: list[str]) -> list[float]:
        """Probability of class 1 of each text."""
        return [float(value) for value in self._predict(texts)]


def _sha256(data: bytes) -> str:
    import hashlib

    return hashlib.sha256(data).hexdigest()


def load(name: str, options: Options) -> AltProfanityCheck:  # noqa: ARG001 (it has no options)
    """The scorer."""
    return AltProfanityCheck()
