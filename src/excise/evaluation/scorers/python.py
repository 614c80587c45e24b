"""A scorer of the user's own: ``python:MODULE:FUNCTION``, a function from ``list[str]`` to ``list[float]``.

The module must be importable: installed, or in a folder named in PYTHONPATH. A call brings one batch, and a process not
all batches: a score must not depend on earlier calls.
"""

import importlib
import inspect
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path

from excise.artefacts import Json, sha256_file
from excise.errors import ExciseError
from excise.evaluation.scorers import Options, check_own


class Function:
    """Calls the function on each batch; an error in it ends the stage."""

    def __init__(self, name: str) -> None:
        _, module, attribute = name.split(":", 2)
        check_own(name)
        try:
            function = getattr(importlib.import_module(module), attribute)
        except Exception as error:
            raise ExciseError(f"scorer {name}: {module} cannot be imported: {_place(error)}") from error
        if not callable(function):
            raise ExciseError(f"scorer {name}: {attribute} is not a function")
        self._function: Callable[[list[str]], list[float]] = function
        self.name = name
        source = inspect.getsourcefile(inspect.unwrap(function)) if inspect.isfunction(function) else None
        self.facts: Json = {"name": name, "source": sha256_file(source) if source and Path(source).is_file() else None}

    def __call__(self, texts: list[str]) -> list[float]:
        """What the function returns.

        Raises:
            ExciseError: it raised, or returned no list.
        """
        try:
            scores: object = self._function(texts)
        except Exception as error:
            raise ExciseError(f"scorer {self.name}: the function failed: {_place(error)}") from error
        if not isinstance(scores, Iterable) or isinstance(scores, str):
            raise ExciseError(
                f"scorer {self.name}: gave {type(scores).__name__} for {len(texts)} texts. A scorer takes a list of "
                "texts and returns as many numbers: def scores(texts: list[str]) -> list[float]"
            )
        return list(scores)


def _place(error: Exception) -> str:
    """What was raised and where; it is the user's code, so the user is to mend it."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} ({Path(last.filename).name}, line {last.lineno})"


def load(name: str, options: Options) -> Function:  # noqa: ARG001 (it has no options)
    """The scorer."""
    return Function(name)
