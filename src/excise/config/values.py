"""Kinds of values that several sections use."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import AfterValidator, Field, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, core_schema

from excise.config import BASELINE, TUNING
from excise.errors import nearest


@dataclass(frozen=True)
class OneOf:
    """A constraint on text: one of the names of a registry, which a ``Literal`` cannot list."""

    names: tuple[str, ...]

    def check(self, value: str) -> str:
        """Refuse another name."""
        if value not in self.names:
            raise ValueError(not_one_of(value, self.names))
        return value

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self.check, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {**handler(schema), "enum": list(self.names)}


def not_one_of(value: object, allowed: Iterable[object]) -> str:
    """The sentence about a value that is not allowed, with the nearest spelling."""
    names = ["null" if one is None else str(one) for one in allowed]
    near = nearest(value, names)
    return f"{value!r} is not one of {', '.join(names)}" + (f". Did you mean {near!r}?" if near else "")


def _free(name: str) -> str:
    if name in (".", "..", BASELINE, TUNING, "settings.json"):
        raise ValueError(f"{name!r} is a name that the workflow uses itself; take another")
    return name


def _each_once(values: list[Any]) -> list[Any]:
    for value in values:
        if values.count(value) > 1:
            raise ValueError(f"{value!r} is given twice")
    return values


Unique = AfterValidator(_each_once)
"""A constraint on a list: no value twice."""

Name = Annotated[
    str, Field(min_length=1, max_length=100, pattern=r"^[^-/{}\x00-\x1f][^/{}\x00-\x1f]*$"), AfterValidator(_free)
]
"""A name of the user's choice, which becomes part of a path and of a command line."""

PartOfPath = Annotated[str, Field(pattern=r"^[^/{}\x00-\x1f]+$"), AfterValidator(_free)]
"""A name that becomes part of a path only."""

Folder = Annotated[str, Field(pattern=r"^[^~{}\x00-\x1f][^{}\x00-\x1f]*$")]
"""A folder that Snakemake writes to: no home sign, no wildcards."""

Text = Annotated[str, Field(min_length=1)]
"""Text that is not empty."""

Seed = Annotated[int, Field(ge=0, le=4294967295)]
"""Seed of a random stream."""

Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
"""A SHA-256 in hexadecimal digits."""

ScorerName = Annotated[
    str,
    Field(
        pattern="^(detoxify-(original|unbiased|multilingual)|alt-profanity-check|better-profanity|repetition|hf:.+"
        "|python:.+:.+)$"
    ),
]
"""A scorer, as ``evaluation.scorers`` knows it."""

SCORERS = (
    "detoxify-original, detoxify-unbiased, detoxify-multilingual, alt-profanity-check, better-profanity, repetition "
    "(1 - RUR of the model's tokens), hf:ID_OR_FOLDER, or python:MODULE:FUNCTION."
)
"""The names that ``ScorerName`` allows, for people."""
