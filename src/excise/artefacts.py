"""Read and write the files that stages pass to each other.

Every artefact is JSON, JSONL or safetensors, is written to a temporary name and renamed, and carries its
provenance: under ``"meta"`` in JSON, as the first line ``{"meta": ...}`` of JSONL, and as the ``meta`` entry
of a safetensors header. Provenance holds nothing that differs between two runs of the same command on one
machine (no times, no paths), so that the same seed gives the same bytes; wall time and peak memory stand in
the last line of a stage's log.
"""

import contextlib
import glob
import hashlib
import json
import math
import os
import re
import shutil
import socket
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias

from excise.errors import ExciseError

if TYPE_CHECKING:
    import numpy as np
    import torch

SCHEMA = 1
"""Version of the artefact formats; raised when a reader of the old one would misread the new one."""

Json = dict[str, Any]

Array: TypeAlias = "np.ndarray[Any, np.dtype[Any]]"


def umask() -> int:
    """Permissions that new files shall not have."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[BinaryIO]:
    """Open a temporary file beside ``path`` that takes its name only when the block ends without an error.

    Raises:
        ExciseError: the folder cannot be written to, or the disk is full; the old file is untouched.
    """
    path = Path(path)
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = beside(path)
        with open(temporary, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        temporary = None
    except OSError as error:
        raise ExciseError(
            f"{path}: cannot be written ({error.strerror or error}). Nothing already there was changed; "
            "make room or choose another folder, then run the same command again."
        ) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def beside(path: Path) -> Path:
    """The name under which this process writes what will be ``path``; what killed ones of this machine left goes."""
    start = f".{path.name[:80]}.{socket.gethostname()}-"
    ours = path.parent / f"{start}{os.getpid()}.tmp"
    for left in path.parent.glob(f"{glob.escape(start)}*.tmp"):
        if left == ours or not _alive(left.name.removeprefix(start).removesuffix(".tmp")):
            if left.is_dir():
                shutil.rmtree(left)
            else:
                left.unlink(missing_ok=True)
    return ours


def _alive(process: str) -> bool:
    try:
        os.kill(int(process), 0)
    except (ProcessLookupError, ValueError, OverflowError):
        return False
    except PermissionError:
        pass
    return True


def _dump(value: object, *, indent: int | None = None) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, indent=indent)
    except ValueError as error:
        raise ExciseError(f"a result is not a finite number ({error}); it is not written") from error


def write_json(path: str | Path, meta: Json, body: Mapping[str, Any]) -> None:
    """Write ``{"meta": meta, **body}``; NaN and infinity are refused."""
    text = _dump({"meta": meta, **body}, indent=1)
    with replacing(path) as file:
        file.write(text.encode() + b"\n")


def read_json(path: str | Path) -> Json:
    """Read a JSON object.

    Raises:
        ExciseError: there is no such file, or it is not a JSON object.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ExciseError(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise ExciseError(f"{path}: not UTF-8 text ({error})") from error
    value = parse_json(text, f"{path}:")
    if not isinstance(value, dict):
        raise ExciseError(f"{path}: expected a JSON object, found {type(value).__name__}")
    return value


def parse_json(text: str, where: str, *, quote: bool = False, each_key_once: bool = False) -> Any:
    """Parse JSON from outside.

    Args:
        text: the JSON.
        where: words before ``not valid JSON``.
        quote: the text is one line of several: end the message with its first characters.
        each_key_once: refuse an object that has a key twice, of which Python would keep the last.

    Raises:
        ExciseError: it is not JSON, is nested too deeply, or holds half of a surrogate pair, which no file can keep.
    """
    try:
        value = json.loads(text, object_pairs_hook=_each_once if each_key_once else None)
        if re.search(r"\\u[dD][89a-fA-F]", text):
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        said = f"half a character: {error.object[error.start]!a}"
    except RecursionError:
        said = "nested too deeply"
    except ValueError as error:
        said = error.msg if quote and isinstance(error, json.JSONDecodeError) else str(error)
    else:
        return value
    raise ExciseError(f"{where} not valid JSON ({said})" + (f": {text[:80]!r}" if quote else ""))


def _each_once(pairs: list[tuple[str, Any]]) -> Json:
    found = dict(pairs)
    if len(found) < len(pairs):
        name = next(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
        raise ValueError(f"the key {name!r} is given twice in one object")
    return found


def write_jsonl(path: str | Path, meta: Json, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write one JSON object a line after a first line ``{"meta": ...}``."""
    with replacing(path) as file:
        file.write(_dump({"meta": meta}).encode() + b"\n")
        for row in rows:
            file.write(_dump(row).encode() + b"\n")


def read_distinct(path: str | Path, required: Iterable[str], what: str) -> tuple[Json, list[Json]]:
    """Read the provenance and the rows of a JSONL file in which every row has an ``id`` of its own.

    Args:
        path: the file.
        required: keys that every row must have, ``id`` among them.
        what: what the rows are, in the message about a file without any.

    Raises:
        ExciseError: as ``read_jsonl``, or there are no rows, or an id occurs twice.
    """
    meta, rows = read_jsonl(path, required=required)
    if not rows:
        raise ExciseError(f"{path}: no {what} in it")
    twice = [name for name, count in Counter(row["id"] for row in rows).items() if count > 1]
    if twice:
        raise ExciseError(f"{path}: the id {twice[0]!r} occurs more than once; ids must be unique")
    return meta, rows


def read_jsonl(
    path: str | Path,
    required: Iterable[str] = (),
    keep: Callable[[int], bool] = lambda _: True,
    *,
    numbers: Sequence[str] = (),
) -> tuple[Json, list[Json]]:
    """Read the provenance and the rows of a JSONL file; a file from elsewhere has no first ``meta`` line.

    Args:
        path: the file.
        required: keys that every row must have.
        keep: whether to return the row of this number, from 0; the others are checked and take no memory.
        numbers: required keys that must hold finite numbers.

    Raises:
        ExciseError: a line is broken, lacks a key or holds no number there; the message names the line.
    """
    meta: Json = {}
    rows: list[Json] = []
    seen = 0
    required = {*required, *numbers}
    try:
        with open(path, encoding="utf-8-sig") as file:
            for number, line in enumerate(file, 1):
                if not line.strip():
                    continue
                row = parse_json(line, f"{path}: line {number} is", quote=True)
                if not isinstance(row, dict):
                    raise ExciseError(f"{path}: line {number}: expected a JSON object, found {type(row).__name__}")
                if number == 1 and row.keys() == {"meta"}:
                    meta = row["meta"]
                    if not isinstance(meta, dict):
                        raise ExciseError(f"{path}: line 1: meta must be a JSON object, found {type(meta).__name__}")
                    continue
                if missing := required - row.keys():
                    raise ExciseError(
                        f"{path}: line {number} lacks {', '.join(sorted(missing))}; it has {', '.join(row)}"
                    )
                for key in numbers:
                    if type(row[key]) not in (int, float) or not abs(row[key]) < math.inf:
                        raise ExciseError(f"{path}: line {number}: {key} {row[key]!r} is not a finite number")
                if keep(seen):
                    rows.append(row)
                seen += 1
    except OSError as error:
        raise ExciseError(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise ExciseError(f"{path}: not UTF-8 text ({error})") from error
    return meta, rows


def write_tensors(path: str | Path, meta: Json, tensors: Mapping[str, "torch.Tensor"]) -> None:
    """Write tensors and their provenance to one safetensors file."""
    from safetensors.torch import save

    _write(path, save({name: tensor.contiguous() for name, tensor in tensors.items()}, metadata={"meta": _dump(meta)}))


def write_arrays(path: str | Path, meta: Json, arrays: Mapping[str, Array]) -> None:
    """Write arrays and their provenance: the bytes of ``write_tensors``, without torch."""
    import numpy as np
    from safetensors.numpy import save

    _write(path, save({name: np.asarray(a, order="C") for name, a in arrays.items()}, metadata={"meta": _dump(meta)}))


def _write(path: str | Path, data: bytes) -> None:
    with replacing(path) as file:
        file.write(data)


def read_tensors(path: str | Path) -> tuple[Json, dict[str, "torch.Tensor"]]:
    """Read the provenance and the tensors of a safetensors file of ours.

    Raises:
        ExciseError: the file cannot be read, is cut short, or was not written by excise.
    """
    return _read(path, "pt")


def read_arrays(path: str | Path) -> tuple[Json, dict[str, Array]]:
    """The same as arrays, without torch."""
    return _read(path, "np")


def _read(path: str | Path, framework: str) -> tuple[Json, dict[str, Any]]:
    from safetensors import SafetensorError, safe_open

    if not Path(path).is_file():
        raise ExciseError(f"{path}: no such file")
    try:
        with safe_open(str(path), framework=framework) as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (OSError, SafetensorError) as error:
        raise ExciseError(f"{path}: not a readable safetensors file ({error})") from error
    if "meta" not in header:
        raise ExciseError(f"{path}: carries no provenance; it was not written by excise")
    return json.loads(header["meta"]), tensors


def sha256_file(path: str | Path) -> str:
    """Hexadecimal SHA-256 of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
