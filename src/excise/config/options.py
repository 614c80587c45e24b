"""Settings as command-line options: the fields of a section describe the options of a stage, and a rule passes them.

Both sides name the same class, so that neither repeats a type, a bound, a default or a sentence::

    add_options(parser, Sampling)                      # in the stage
    options(config["generations"], Sampling)           # in the rule: "--num-generations 25 --temperature 1.0 ..."
"""

import argparse
import shlex
from collections.abc import Callable, Collection, Iterator, Mapping
from types import NoneType
from typing import Annotated, Any, Literal, TypeVar, get_args

from pydantic import TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from excise.config.section import Section, alternatives
from excise.config.wording import sentence, sentences
from excise.errors import ExciseError

Chosen = TypeVar("Chosen", bound=Section)

TYPED = "typed"
"""Where a namespace keeps which options of sections were typed."""


def add_options(
    parser: argparse.ArgumentParser,
    section: type[Section],
    *,
    only: Collection[str] = (),
    without: Collection[str] = (),
    optional: Collection[str] = (),
) -> None:
    """Give a stage an option for each setting of a section.

    Args:
        parser: of the stage.
        section: its fields become ``--name VALUE``, ``--flag`` for those that are false by default.
        only: names of the fields to take; all by default.
        without: names of the fields to leave out.
        optional: fields that a configuration must set and a person at the command line may leave out.
    """
    for name, field in _fields(section, only, without):
        required = field.is_required() and name not in optional
        parser.add_argument(_option(name), help=_help(field, required), **_argument(field, required))


class _Typed(argparse.Action):
    """Stores a value, and that it was typed."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,  # noqa: ARG002
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,  # noqa: ARG002
    ) -> None:
        setattr(namespace, self.dest, self.const if self.nargs == 0 else values)
        setattr(namespace, TYPED, getattr(namespace, TYPED, frozenset()) | {self.dest})


def section(arguments: argparse.Namespace, kind: type[Chosen]) -> Chosen:
    """The settings of a section as they were typed, with what the class says of several of them together.

    What was not typed counts as not given, as in a configuration: ``--greedy`` alone makes one generation.

    Raises:
        ExciseError: two settings do not go together.
    """
    typed: frozenset[str] = getattr(arguments, TYPED, frozenset()) & kind.model_fields.keys()
    try:
        return kind.model_validate({name: getattr(arguments, name) for name in typed})
    except ValidationError as error:
        raise ExciseError("\n".join(sentences(error, kind)).removeprefix("top level: ")) from error


def options(
    values: Mapping[str, Any],
    section: type[Section] | None = None,
    *,
    only: Collection[str] = (),
    without: Collection[str] = (),
) -> str:
    """Settings as a part of a command line, quoted for the shell.

    Args:
        values: settings by name. What is None or false is left out; a list gives its option once, with all its values.
        section: take only its fields, in its order.
        only: names of the settings to take; all by default.
        without: names of the settings to leave out.
    """
    names = list(values) if section is None else [name for name, _ in _fields(section, only, without)]
    words = []
    for name in names:
        value = values[name]
        if value is None or value is False or (only and name not in only) or name in without:
            continue
        given = [str(one) for one in value] if isinstance(value, list) else [str(value)]
        if value is True:
            words.append(_option(name))
        elif given and given[0].startswith("-"):  # taken for a value only after an equals sign
            words.append(f"{_option(name)}={shlex.quote(given[0])}")
        elif given:
            words.append(" ".join([_option(name), *map(shlex.quote, given)]))
    return " ".join(words)


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _fields(section: type[Section], only: Collection[str], without: Collection[str]) -> Iterator[tuple[str, FieldInfo]]:
    """Fields of a section, by name.

    Raises:
        ValueError: a name is not one of its fields.
    """
    if missing := {*only, *without} - section.model_fields.keys():
        raise ValueError(f"{section.__name__} has no field {', '.join(sorted(missing))}")
    for name, field in section.model_fields.items():
        if (not only or name in only) and name not in without:
            yield name, field


def _argument(field: FieldInfo, required: bool) -> dict[str, Any]:
    """What argparse is told of a field."""
    default = None if field.is_required() else field.get_default(call_default_factory=True)
    (first, *_) = [one for one in alternatives(field) if one.type is not NoneType]
    if first.type is bool:
        return {"action": _Typed, "nargs": 0, "const": True, "default": default}
    described: dict[str, Any] = {"action": _Typed, "required": required, "default": default}
    if first.container is list:
        (item,) = get_args(first.type)
        return described | {"nargs": "+", "type": _reader(item)}
    if first.container is Literal:
        described["metavar"] = "{" + ",".join(map(str, get_args(first.type))) + "}"
    return described | {"type": _reader(Annotated[field.annotation, None, *field.metadata])}


def _reader(annotation: Any) -> Callable[[str], Any]:
    """What turns a word of the command line into the value of a setting, within its bounds."""

    def read(word: str) -> Any:
        try:
            return TypeAdapter(annotation).validate_python(word)
        except ValidationError as error:
            raise argparse.ArgumentTypeError(sentence(error, annotation)) from error

    return read


def _help(field: FieldInfo, required: bool) -> str:
    """The sentence of a field, as argparse shows it."""
    said = (field.description or "").removesuffix(".").replace("%", "%%")
    default = None if field.is_required() else field.get_default(call_default_factory=True)
    if required or default in (None, False, []):
        return said
    shown = " ".join(map(str, default)) if isinstance(default, list) else default
    return f"{said} (default {shown})"
