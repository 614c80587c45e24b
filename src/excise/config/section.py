"""What all sections of the configuration share, and how their annotations are read."""

from collections.abc import Iterator
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Tag
from pydantic.fields import FieldInfo


class Section(BaseModel):
    """A block of keys: unknown keys are refused, no value is converted (2.0 is no whole number), no number is infinite.

    Classes are built when they are first used to check something; reading their fields costs little.
    """

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, defer_build=True)


@dataclass(frozen=True)
class Alternative:
    """One of the types that a setting may have.

    Attributes:
        type: ``int``, ``float``, ``str``, ``bool``, ``NoneType``, a section, ``list[...]``, ``dict[...]`` or
            ``Literal[...]``.
        constraints: bounds, patterns and checks.
    """

    type: Any
    constraints: tuple[Any, ...] = ()

    @property
    def container(self) -> Any:
        """``list``, ``dict`` or ``Literal``; None for other types."""
        return get_origin(self.type)

    def is_section(self) -> bool:
        """Whether this is a block of keys with names of its own."""
        return isinstance(self.type, type) and issubclass(self.type, Section)

    def tag(self) -> str | None:
        """The value that tells this section from its siblings; see ``Key``."""
        return next((one.tag for one in self.constraints if isinstance(one, Tag)), None)


def alternatives(annotation: Any, constraints: tuple[Any, ...] = ()) -> Iterator[Alternative]:
    """The types that an annotation allows, ``None`` last as people say it."""
    if isinstance(annotation, FieldInfo):
        yield from alternatives(annotation.annotation, tuple(annotation.metadata))
    elif get_origin(annotation) is Annotated:
        inner, *extra = get_args(annotation)
        flat = [one for item in extra for one in (item.metadata if isinstance(item, FieldInfo) else [item])]
        yield from alternatives(inner, (*flat, *constraints))
    elif get_origin(annotation) in (Union, UnionType):
        members = sorted(get_args(annotation), key=lambda member: member is NoneType)
        for member in members:
            yield from alternatives(member, constraints if member is not NoneType else ())
    else:
        yield Alternative(annotation, constraints)


def words(alternative: Alternative) -> str:
    """What people who write YAML call a type."""
    if alternative.container is Literal:
        return " or ".join(repr(value) for value in get_args(alternative.type))
    if alternative.container is dict or alternative.is_section():
        return "a block of keys"
    named = {int: "a whole number", float: "a number", str: "text", bool: "true or false", NoneType: "null"}
    return named.get(alternative.type, "a list")


@dataclass(frozen=True)
class Key:
    """Says which of several sections a block of keys is: the one whose ``Tag`` is the value of ``key``.

    ``Annotated[Annotated[A, Tag("a")] | Annotated[B, Tag("b")], Discriminator(Key("kind"))]``

    Attributes:
        key: whose value decides.
        default: its value where the key is left out.
    """

    key: str
    default: str | None = None

    @property
    def __name__(self) -> str:  # pydantic asks every function that tells sections apart for its name
        return self.key

    def __call__(self, value: Any) -> str | None:
        """The tag of a block of keys, or of a section."""
        found = value.get(self.key, self.default) if isinstance(value, dict) else getattr(value, self.key, None)
        return None if found is None else str(found)


@dataclass(frozen=True)
class OneOrSeveral:
    """Tells one block of keys from a list of them: ``Tag("one")`` and ``Tag("several")``."""

    @property
    def __name__(self) -> str:  # pydantic asks every function that tells sections apart for its name
        return "one or several"

    def __call__(self, value: Any) -> str:
        """The tag of a value."""
        return "several" if isinstance(value, list) else "one"
