"""Which source files a stage depends on, and one digest over them.

Snakemake does not watch an imported package. Each rule carries the digest of its stage as a parameter, so
that editing a module reruns the rules that use it and only those. The same digest is in every artefact's
provenance: two artefacts with equal digests were made by equal code.
"""

import ast
import functools
import hashlib
from pathlib import Path

ROOT = Path(__file__).parent

REGISTRIES = ("attribution/registry.py",)
"""Files that only list others. A stage that uses one of these names it (``also``), and the list is left out."""


@functools.cache
def _imports(path: Path) -> frozenset[Path]:
    """Files of this package that ``path`` imports anywhere, also inside functions; but not for types alone."""
    found, tree = set(), ast.parse(path.read_text(encoding="utf-8"))
    checks = [node for node in ast.walk(tree) if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    for_types = {id(node) for check in checks for node in ast.walk(check)}
    for node in ast.walk(tree):
        if id(node) in for_types:
            continue
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            continue
        for name in names:
            package, *parts = name.split(".")
            if package != "excise" or not parts:
                continue
            module = ROOT.joinpath(*parts)
            found |= {file for file in (module.with_suffix(".py"), module / "__init__.py") if file.is_file()}
            found |= set(module.rglob("*.html")) | set(module.rglob("*.css"))  # the templates of a package
    return frozenset(found)


@functools.cache
def sources(module: str, *also: str) -> tuple[Path, ...]:
    """The source files that ``module`` (and ``also``) reach through imports, sorted.

    Args:
        module: dotted name inside the package, for example ``"stages.attribute"``.
        also: the modules that it uses of a registry, for example ``"attribution.lrp"``.

    Raises:
        FileNotFoundError: there is no such module.
    """
    queue = [ROOT.joinpath(*name.split(".")).with_suffix(".py") for name in (module, *also)]
    left_out = {ROOT / path for path in REGISTRIES if also}
    reached: set[Path] = set()
    while queue:
        path = queue.pop()
        if path not in reached:
            reached.add(path)
            queue.extend(_imports(path) - left_out if path.suffix == ".py" else ())
    return tuple(sorted(reached))


@functools.cache
def digest(module: str, *also: str) -> str:
    """First 16 hexadecimal digits of the SHA-256 over names and bytes of ``sources(module, *also)``."""
    sha = hashlib.sha256()
    for path in sources(module, *also):
        sha.update(f"{path.relative_to(ROOT).as_posix()}\0".encode())
        sha.update(path.read_bytes() + b"\0")
    return sha.hexdigest()[:16]
