"""What pydantic found wrong, as sentences: where, which value, what is allowed."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import NoneType
from typing import Any, Literal, get_args

from pydantic import Discriminator, ValidationError

from excise.config.section import Alternative, Key, Section, alternatives, words
from excise.config.values import not_one_of
from excise.errors import nearest

BOUNDS = {
    "greater_than": ("less than or equal to the minimum of", "gt"),
    "greater_than_equal": ("less than the minimum of", "ge"),
    "less_than": ("greater than or equal to the maximum of", "lt"),
    "less_than_equal": ("greater than the maximum of", "le"),
}
"""Types of pydantic's errors about bounds: how they are said, and what pydantic calls the bound."""


@dataclass
class _Place:
    """Where an error is: the path that people see, and what is allowed there."""

    path: list[str] = field(default_factory=list)
    allowed: list[Alternative] = field(default_factory=list)
    meaning: str = ""

    def section(self) -> type[Section]:
        """The section that a key is unknown in, or missing from."""
        found: type[Section] = next(one.type for one in self.allowed if one.is_section())
        return found


def sentences(error: ValidationError, top: type[Section]) -> list[str]:
    """One sentence for each mistake, in the order of the file.

    Args:
        error: of pydantic.
        top: the section that was checked.
    """
    found: dict[tuple[str, ...], list[tuple[_Place, Mapping[str, Any]]]] = {}
    for detail in error.errors(include_url=False):
        place = _place(detail["loc"], top)
        key = (*place.path, str(detail["loc"][-1]) if detail["type"] in ("missing", "extra_forbidden") else "")
        found.setdefault(key, []).append((place, detail))
    return [_sentence(*_most_telling(group)) for group in found.values()]


def sentence(error: ValidationError, setting: Any) -> str:
    """The sentence about one value that was checked alone, without its place."""
    place = _Place(allowed=list(alternatives(setting)))
    return _said(*_most_telling([(place, detail) for detail in error.errors(include_url=False)]))


def _place(location: tuple[Any, ...], top: type[Section]) -> _Place:
    """Follow pydantic's path, which also names alternatives and the tags of sections, through the annotations."""
    place = _Place(allowed=[Alternative(top)])
    for part in location:
        tagged = [one for one in place.allowed if one.tag() == part]
        container = next((one for one in place.allowed if one.is_section() or one.container in (list, dict)), None)
        if tagged:
            place.allowed = [Alternative(tagged[0].type)]
        elif part == "[key]":
            return _Place(place.path[:-1], [Alternative(str)])
        elif container is None:
            break
        elif container.is_section():
            if part not in container.type.model_fields:
                break
            setting = container.type.model_fields[part]
            place.path.append(part)
            place.allowed = list(alternatives(setting))
            place.meaning = setting.description or ""
        else:
            place.path.append(str(part))
            place.allowed = list(alternatives(get_args(container.type)[-1]))
    return place


def _most_telling(group: list[tuple[_Place, Mapping[str, Any]]]) -> tuple[_Place, Mapping[str, Any]]:
    """Of the errors about one value, one for each type that it may have, the one about its size, or else the first."""
    return next((one for one in group if one[1]["type"] in BOUNDS), group[0])


def _sentence(place: _Place, detail: Mapping[str, Any]) -> str:
    where = ".".join(place.path) or "top level"
    kind, last = detail["type"], detail["loc"][-1] if detail["loc"] else ""
    if kind == "missing":
        return f"{'.'.join(place.path[:-1]) or 'top level'}: {last!r} is a required property."
    if kind in ("extra_forbidden", "invalid_key"):
        allowed = sorted(place.section().model_fields)
        near = nearest(last, allowed)
        hint = f" Did you mean {near!r}?" if near else ""
        return f"{where}: unknown key {last!r}.{hint} Allowed: {', '.join(allowed)}."
    if kind == "union_tag_invalid":
        where += f".{_key(place)}"
    said = _said(place, detail)
    meaning = "" if any(one.is_section() for one in place.allowed) or not place.meaning else f" ({place.meaning})"
    return f"{where}: {said}{'' if said.endswith('?') else '.'}{meaning}"


def _key(place: _Place) -> str:
    """The key that decides which section a block is."""
    constraints = place.allowed[0].constraints
    keys = (one.discriminator for one in constraints if isinstance(one, Discriminator))
    return next(one.key for one in keys if isinstance(one, Key))


def _said(place: _Place, detail: Mapping[str, Any]) -> str:
    kind, value, context = detail["type"], detail["input"], detail.get("ctx", {})
    if kind in BOUNDS:
        said, bound = BOUNDS[kind]
        return f"{value!r} is {said} {context[bound]:g}"
    if kind == "value_error":
        return str(context["error"])
    if kind == "string_pattern_mismatch":
        return f"{value!r} does not match {context['pattern']!r}"
    if kind in ("too_short", "string_too_short", "too_long", "string_too_long"):
        limit = f"at least {context['min_length']}" if "min_length" in context else f"at most {context['max_length']}"
        return f"{value!r} has the wrong length: {limit} allowed"
    if kind == "union_tag_invalid":
        return not_one_of(context["tag"], [one.tag() for one in place.allowed])
    if kind == "union_tag_not_found" and isinstance(value, Mapping):
        return f"{_key(place)!r} is a required property"
    listed = [get_args(one.type) if one.container is Literal else (None,) for one in place.allowed]
    if kind == "literal_error" and all(one.container is Literal or one.type is NoneType for one in place.allowed):
        return not_one_of(value, [value for values in listed for value in values])
    return f"{value!r} is not {' or '.join(dict.fromkeys(words(one) for one in place.allowed))}"
