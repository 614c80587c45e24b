"""A results folder on a disk that is full, and one that shows files late, as a network file system does."""

import contextlib
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def full_disk(folder: Path) -> Iterator[Path]:
    """Lay a folder on a disk of 8 MB that is full; yields the file that fills it."""
    kept = folder.with_name("kept")
    folder.rename(kept)
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "none", folder], check=True)
    try:
        shutil.copytree(kept, folder, symlinks=True, dirs_exist_ok=True)
        filler = folder / "filler"
        with open(filler, "wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(4096))
        yield filler
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


class Late:
    """A folder of which the login node and the compute nodes each see their own copy; the other's files come late.

    Slurm's nodes see the folder as it is. What is started with ``around`` before its command sees the copy.

    Args:
        folder: the folder.
        to_login: seconds that a new file, or a new version of one, takes from the compute nodes to the login node.
        to_nodes: and the other way.
    """

    def __init__(self, folder: Path, *, to_login: float, to_nodes: float) -> None:
        self.sides = (folder, folder.parent.parent / "late")
        shutil.copytree(*self.sides, symlinks=True)
        self.ways = ((*self.sides, to_login), (*self.sides[::-1], to_nodes))
        self.seen: dict[tuple[Path, tuple[int, int]], float] = {}
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._work)
        mount = 'mount --bind "$0" "$1" && shift && exec "$@"'
        self.around = ["unshare", "--mount", "sh", "-c", mount, str(self.sides[1]), str(folder)]

    def __enter__(self) -> "Late":
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        self.thread.join()

    def _work(self) -> None:
        while not self.ended.wait(0.2):
            for source, target, seconds in self.ways:
                for path in source.rglob("*"):
                    with contextlib.suppress(FileNotFoundError):  # a temporary file that took its name meanwhile
                        if path.is_file():
                            self._bring(path, target / path.relative_to(source), seconds)

    def _bring(self, path: Path, target: Path, seconds: float) -> None:
        """Copy a file whose time has come and that is newer than the other side's."""
        version = _version(path)
        if target.is_file() and _version(target) >= version:
            return
        if time.monotonic() - self.seen.setdefault((path, version), time.monotonic()) < seconds:
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        draft = target.with_name(f".{target.name}.late")
        shutil.copy2(path, draft)
        draft.replace(target)


def _version(path: Path) -> tuple[int, int]:
    """Time of the last change, and size."""
    found = path.stat()
    return found.st_mtime_ns, found.st_size
