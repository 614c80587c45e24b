"""Read a configuration file more strictly than YAML demands.

A key that is given twice is an error, and so is a number that YAML reads as another one than it looks like: 012345 is
octal (5349), 4:00:00 is in sixties (14400), 1_000 loses its sign.
"""

import re
from collections.abc import Hashable, Iterator
from pathlib import Path

import yaml

from excise.errors import ExciseError

AS_WRITTEN = re.compile(r"[-+]?(0|[1-9][0-9]*)(\.[0-9]*)?([eE][-+]?[0-9]+)?|[-+]?\.[0-9]+([eE][-+]?[0-9]+)?|[-+]?\.\w+")
"""A number that is what it looks like; the last form is .inf and .nan."""


def check_file(path: Path) -> None:
    """Refuse a configuration file of which YAML would take something else than it says, without a word.

    Raises:
        ExciseError: the file is not UTF-8, not YAML, gives a key twice in one block, or a number that is read as
            another.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise ExciseError(
            f"{path}, line {line}: byte 0x{error.object[error.start]:02x} is not UTF-8. Save the file as UTF-8."
        ) from error
    try:
        is_json = text.lstrip().startswith("{")  # which may be indented by tabs
        root = yaml.compose(text.expandtabs() if is_json else text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        broken = "" if mark is None else "".join(text.splitlines()[mark.line : mark.line + 1])
        hint = " YAML is indented by spaces, and this line has a tab." if "\t" in broken else ""
        raise ExciseError(f"{path}: not YAML: {error}{hint}") from error
    if root is not None and (found := [*_twice(root, ""), *_misread(root)]):
        raise ExciseError("\n".join(f"{path}: {sentence}" for sentence in found))


def _twice(node: yaml.Node, where: str) -> Iterator[str]:
    """Keys that are given twice, as sentences with both lines."""
    if isinstance(node, yaml.SequenceNode):
        for number, child in enumerate(node.value):
            yield from _twice(child, f"{where}{number}.")
    if not isinstance(node, yaml.MappingNode):
        return
    first: dict[Hashable, int] = {}
    for key, value in node.value:
        line, name = key.start_mark.line + 1, str(key.value)
        if name in first:
            yield f"{where}{name} is given in line {first[name]} and again in line {line}; leave one"
        first.setdefault(name, line)
        yield from _twice(value, f"{where}{name}.")


def _misread(node: yaml.Node) -> Iterator[str]:
    """Numbers that are read as others, as sentences with their lines."""
    if isinstance(node, yaml.MappingNode):
        for pair in node.value:
            for child in pair:
                yield from _misread(child)
    elif isinstance(node, yaml.SequenceNode):
        for child in node.value:
            yield from _misread(child)
    elif node.tag in ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float") and not AS_WRITTEN.fullmatch(node.value):
        number = yaml.safe_load(node.value)
        yield (
            f"line {node.start_mark.line + 1}: YAML reads {node.value} as {number}; write {number}, or put quotes "
            "around it if it is text, not a number"
        )
