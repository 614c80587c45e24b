"""Read a configuration file more strictly than YAML demands: a key that is given twice is an error."""

from collections.abc import Hashable, Iterator
from pathlib import Path

import yaml

from excise.errors import ExciseError


def check_file(path: Path) -> None:
    """Refuse a configuration file that says something twice, of which YAML would keep the last without a word.

    Raises:
        ExciseError: the file is not UTF-8, not YAML, or gives a key twice in one block.
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
    if root is not None and (found := list(_twice(root, ""))):
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
