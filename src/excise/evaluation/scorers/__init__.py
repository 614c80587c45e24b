"""Scorers of continuations. One file a family, found by the first word of the scorer's name."""

import ast
import importlib
import importlib.util
import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any, Protocol

from excise.artefacts import Json
from excise.errors import ExciseError, unknown

FAMILIES = {
    "alt": ("alt-profanity-check",),
    "better": ("better-profanity",),
    "detoxify": ("detoxify-original", "detoxify-unbiased", "detoxify-multilingual"),
    "hf": ("hf:ID_OR_FOLDER",),
    "python": ("python:MODULE:FUNCTION",),
    "repetition": ("repetition",),
}
"""Module in this package: the names that it answers to."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """What a scorer may be told.

    Attributes:
        checkpoint: local weights (detoxify).
        label: which of a classifier's labels counts (hf).
        probability: ``sigmoid`` or ``softmax`` over a classifier's labels (hf).
        device: where a neural scorer runs.
    """

    checkpoint: Path | None = None
    label: str | None = None
    probability: str | None = None
    device: str = "cpu"


class Scorer(Protocol):
    """Scores a batch of continuations; higher means more of the behaviour.

    Attributes:
        name: what tables call it; no path in it.
        facts: everything that identifies it: versions, label, digest of its weights.
    """

    name: str
    facts: Json

    def __call__(self, continuations: list[Any], /) -> list[float]:
        """One finite number per continuation, which comes as text or as token ids (``column``)."""
        ...


def module(name: str) -> str:
    """The module of excise that holds a scorer, as ``excise.digest`` names it.

    Raises:
        ExciseError: no scorer has this name.
    """
    family, _, rest = name.partition(":")
    known = [known for names in FAMILIES.values() for known in names]
    if family == "python" and not all(rest.partition(":")):
        raise ExciseError(f"--scorer {name}: expected python:MODULE:FUNCTION")
    if rest and family in ("hf", "python"):
        return f"evaluation.scorers.{family}"
    if name in known and not name.startswith(("hf", "python")):
        return f"evaluation.scorers.{name.split('-')[0]}"
    raise unknown("scorer", name, known, where="--scorer")


def column(name: str) -> str:
    """What a scorer reads of a generation: its text, or the ids of the tokens that the model chose."""
    return "completion_ids" if name in FAMILIES["repetition"] else "completion"


def own_source(name: str) -> Path | None:
    """The file of a user's own scorer (``python:MODULE:FUNCTION``); None for others, and where Python finds no file."""
    if not name.startswith("python:"):
        return None
    found = _spec(name)
    return Path(found.origin) if found is not None and found.origin and Path(found.origin).is_file() else None


def _spec(name: str) -> ModuleSpec | None:
    try:
        return importlib.util.find_spec(name.split(":")[1])
    except ModuleNotFoundError:  # of the package around the module
        return None


def check_own(name: str) -> None:
    """Refuse a user's own scorer whose module or function is not to be found, without running its code.

    Raises:
        ExciseError: it is not there, or its file is not Python.
    """
    if not name.startswith("python:"):
        return
    _, module, function = name.split(":", 2)
    if _spec(name) is None:
        raise ExciseError(
            f"scorer {name}: there is no module {module!r}. Expected python:MODULE:FUNCTION, MODULE without .py, and "
            "installed or in a folder that PYTHONPATH names."
        )
    source = own_source(name)
    if source is None or source.suffix != ".py":
        return
    try:
        tree = ast.parse(source.read_bytes())
    except SyntaxError as error:
        raise ExciseError(f"scorer {name}: {source.name}, line {error.lineno}: {error.msg}") from error
    names = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    names |= {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    names |= {(node.asname or node.name).split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.alias)}
    if function not in names and "*" not in names:
        raise unknown("function", function, sorted(names), where=f"scorer {name}: {source.name}")


def needs_trial(name: str) -> bool:
    """Whether a scorer is to be tried before models run: one that is fetched, or that we have never seen."""
    return name.startswith(("hf:", "detoxify", "python:"))


LONG = "This sentence is only here to be long. " * 400
"""A text beyond the length of most classifiers."""

SAME = 0.01
"""A neural classifier gives a text the same score alone and in a batch, but for rounding."""


def tried(scorer: Scorer, name: str) -> None:
    """Score one text, an empty one and a long one, alone and together: models do give such answers.

    A scorer that cannot is found before any model has run, and one that takes padding for text, too.

    Raises:
        ExciseError: it fails on one of them, or a neural one scores a text in company as another text.
    """
    ids = column(name) == "completion_ids"
    texts: dict[str, Any] = {
        "a text": [1, 2, 2] if ids else "A short sentence.",
        "an empty text": [] if ids else "",
        "a long text": [1] * 4000 if ids else LONG,
    }
    alone = {what: _attempt(scorer, name, what, [text])[0] for what, text in texts.items()}
    _attempt(scorer, name, "a batch of empty texts", [texts["an empty text"]] * 2)
    together = _attempt(scorer, name, "a batch of different texts", list(texts.values()))
    if name.startswith(("hf:", "detoxify")):
        for (what, value), other in zip(alone.items(), together, strict=True):
            if abs(value - other) > SAME:
                raise ExciseError(
                    f"scorer {name}: gives {what} {value:.3f} alone and {other:.3f} beside others; it takes padding "
                    "for text, so its scores mean nothing. Its tokenizer and its config.json disagree on the padding."
                )


def _attempt(scorer: Scorer, name: str, what: str, texts: list[Any]) -> list[float]:
    try:
        return score(scorer, texts)
    except ExciseError as error:
        raise ExciseError(f"{error} (this scorer is tried before models run, here on {what})") from error
    except Exception as error:  # of somebody else's model or code
        said = " ".join(str(error).split())[:300]
        raise ExciseError(f"scorer {name}: fails on {what}: {type(error).__name__}: {said}") from error


def unloaded(name: str, why: object, instead: str) -> ExciseError:
    """An error for a scorer that is neither in the caches nor to be had over the network."""
    return ExciseError(
        f"scorer {name}: cannot be loaded ({' '.join(str(why).split())}). Run excise fetch-scorer once where there is "
        "a network (a login node) with the same HF_HOME and TORCH_HOME, for a gated or private one with HF_TOKEN too; "
        f"or {instead}."
    )


def load(name: str, options: Options) -> Scorer:
    """The scorer of a name, with its weights loaded.

    Raises:
        ExciseError: the name is unknown, an option does not apply, or the weights are not to be had.
    """
    family = importlib.import_module(f"excise.{module(name)}")
    if options.checkpoint is not None and not name.startswith("detoxify"):
        raise ExciseError(f"--checkpoint belongs to the detoxify scorers, not to {name!r}")
    for option in ("label", "probability"):
        if getattr(options, option) is not None and not name.startswith("hf:"):
            raise ExciseError(f"--{option} belongs to hf: scorers, not to {name!r}")
    scorer: Scorer = family.load(name, options)
    return scorer


def score(scorer: Scorer, continuations: Sequence[Any]) -> list[float]:
    """The scores of a batch, checked.

    Raises:
        ExciseError: the scorer gives another number of scores than texts, or one that is not a finite number.
    """
    values = [float(value) for value in scorer(list(continuations))]
    if len(values) != len(continuations):
        raise ExciseError(f"scorer {scorer.name!r} gave {len(values)} scores for {len(continuations)} texts")
    for text, value in zip(continuations, values, strict=True):
        if not math.isfinite(value):
            raise ExciseError(
                f"scorer {scorer.name!r} gave {value} for the text {text[:60]!r}; no score is made up for it"
            )
    return values
