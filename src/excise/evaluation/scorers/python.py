"""A scorer of the user's own: ``python:MODULE:FUNCTION``, a function from ``list[str]`` to ``list[float]``.

The module must be importable: installed, or in a folder named in PYTHONPATH. A call brings one batch, and a process not
all batches: a score must not depend on earlier calls.
"""

import importlib
import inspect
from collections.abc import Callable
from pathlib import Path

from excise.artefacts import Json, sha256_file
from excise.errors import ExciseError
from excise.evaluation.scorers import Options


class Function:
    """Calls the function on each batch; what it raises ends the stage."""

    def __init__(self, name: str) -> None:
        _, module, attribute = name.split(":", 2)
        try:
            function = getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError) as error:
            raise ExciseError(
                f"scorer {name}: {error}. Expected python:MODULE:FUNCTION, with MODULE installed or in PYTHONPATH."
            ) from error
        if not callable(function):
            raise ExciseError(f"scorer {name}: {attribute} is not a function")
        self._function: Callable[[list[str]], list[float]] = function
        self.name = name
        source = inspect.getsourcefile(inspect.unwrap(function)) if inspect.isfunction(function) else None
        self.facts: Json = {"name": name, "source": sha256_file(source) if source and Path(source).is_file() else None}

    def __call__(self, texts: list[str]) -> list[float]:
        """What the function returns."""
        return list(self._function(texts))


def load(name: str, options: Options) -> Function:  # noqa: ARG001 (it has no options)
    """The scorer."""
    return Function(name)
