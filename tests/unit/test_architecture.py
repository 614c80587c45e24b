"""The structure of the library, measured: the order of docs/architecture.md, no circles, files and functions that can be read."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

ROOT = REPOSITORY / "src/excise"
LONGEST = 400
"""Lines of a file."""
LONGEST_FUNCTION = 60
"""Lines of a function, its docstring included."""


def name_of(path: Path) -> str:
    """Dotted name inside the package; empty for the package itself."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix("__init__").rstrip(".")


MODULES = {name_of(path): path for path in ROOT.rglob("*.py")}


def imported(path: Path) -> Iterator[str]:
    """Modules of this package that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        for name in names:
            package, _, module = name.partition(".")
            if package == "excise" and module and module in MODULES:
                yield module


IMPORTS = {name: set(imported(path)) - {name} for name, path in MODULES.items() if name not in ("", "__main__")}


def rows() -> list[list[str]]:
    """The first column of the table of layers, row by row."""
    page = (REPOSITORY / "docs/architecture.md").read_text(encoding="utf-8")
    table = page[page.index("## Layers of the library") :].split("\n\n")[1]
    return [re.findall(r"`(\w+)/?`", line.split("|")[1]) for line in table.splitlines()[2:]]


def test_each_layer_imports_only_from_those_above_it() -> None:
    place = {name: row for row, names in enumerate(rows()) for name in names}
    tops = {name.split(".")[0] for name in IMPORTS}
    assert tops == place.keys(), f"not in the table: {tops - place.keys()}; not in the library: {place.keys() - tops}"
    below = {
        f"{name} imports {other}"
        for name, others in IMPORTS.items()
        for other in others
        if place[other.split(".")[0]] > place[name.split(".")[0]]
    }
    assert not below


def test_no_imports_in_a_circle() -> None:
    left = {name: set(others) for name, others in IMPORTS.items()}
    while free := [name for name, others in left.items() if not others & left.keys()]:
        for name in free:
            del left[name]
    assert not left


@pytest.mark.parametrize("folder", ["src", "workflow", "benchmarks", "tests"])
def test_files_can_be_read_at_a_sitting(folder: str) -> None:
    files = [path for ending in ("py", "smk") for path in (REPOSITORY / folder).rglob(f"*.{ending}")]
    lengths = {path.relative_to(REPOSITORY).as_posix(): len(path.read_text().splitlines()) for path in files}
    assert lengths
    assert not {path: length for path, length in lengths.items() if length > LONGEST}


def test_the_library_knows_nothing_of_snakemake() -> None:
    for name, path in MODULES.items():
        assert not re.search(r"^\s*(from|import) snakemake", path.read_text(), re.MULTILINE), name


def test_functions_can_be_read_at_a_glance() -> None:
    for folder in ("src", "workflow", "benchmarks"):
        for path in (REPOSITORY / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                    lines = node.end_lineno - node.lineno + 1 if node.end_lineno else 0
                    assert lines <= LONGEST_FUNCTION, f"{path}: {node.name} has {lines} lines"
