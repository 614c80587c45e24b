"""Which files a model folder consists of: one answer for fetching, watching, fingerprints, loading and export."""

import contextlib
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from excise.artefacts import read_json
from excise.errors import ExciseError

if TYPE_CHECKING:
    import torch

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
SIDE_FILES = (
    *("config.json", "generation_config.json", "chat_template.json", "chat_template.jinja"),
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json"),
    *("merges.txt", "vocab.txt", "*.model", "tekken.json", "additional_chat_templates/*.jinja"),
    *("LICENSE*", "LICENCE*", "NOTICE*", "USE_POLICY*"),
    # of an encoder: how its states become one embedding, and which of its parts were cut
    *("modules.json", "sentence_bert_config.json", "config_sentence_transformers.json", "[0-9]_*/config.json"),
    "structure.json",
)
"""What a model needs beside its weights. Never Python files, never pickles."""

LFS_POINTER = b"version https://git-lfs"
"""How the small file begins that a git clone has where Git LFS did not fetch the real one."""


class Stored(NamedTuple):
    """A tensor on disk: its file, its shape, and its dtype as safetensors calls it (``F32``, ``BF16``)."""

    file: Path
    shape: tuple[int, ...]
    dtype: str


def indexed(folder: str | Path, name: str | None = None) -> list[str]:
    """Names of the safetensors files that hold a model: those of its index, or else the single file.

    Only the index is read, so this can be asked before the weights are fetched.

    Args:
        folder: a model folder.
        name: what messages call the folder.

    Raises:
        ExciseError: the index names no files, or files outside the folder, or there is a single file beside it that it
            does not name: readers would disagree about which of the two is the model.
    """
    folder = Path(folder)
    if not (folder / INDEX).is_file():
        return [WEIGHTS]
    parts = read_json(folder / INDEX).get("weight_map")
    files = sorted({str(part) for part in parts.values()}) if isinstance(parts, dict) else []
    odd = [part for part in files if not re.fullmatch(r"[^/\\]+\.safetensors", part) or part.startswith(".")]
    where = name or str(folder)
    if odd or not files:
        raise ExciseError(
            f"{where}: {INDEX} names {odd[0] if odd else 'no file'}; it must name *.safetensors beside it"
        )
    if (folder / WEIGHTS).is_file() and WEIGHTS not in files:
        raise ExciseError(
            f"{where}: it has {WEIGHTS} and an index of other files ({files[0]}, ...): which of the two is the model? "
            f"Remove {WEIGHTS}, or {INDEX}"
        )
    return files


def weight_files(folder: str | Path, name: str | None = None) -> list[Path]:
    """The safetensors files that hold a model, sorted by name; other ones beside them are no part of it.

    Raises:
        ExciseError: there is no such folder, or one of the files is missing or a link to nothing.
    """
    folder = Path(folder)
    where = name or str(folder)
    if not folder.is_dir():
        raise ExciseError(f"{where}: there is no such folder; a model is a Hugging Face folder")
    files = [folder / part for part in indexed(folder, name)]
    _refuse_dangling(files, where)
    missing = [path.name for path in files if not path.is_file()]
    if missing and (folder / INDEX).is_file():
        raise ExciseError(f"{where}: {INDEX} names {', '.join(missing[:5])}, which is not there")
    if missing:
        kinds = (".bin", ".pt", ".pth", ".safetensors")
        others = sorted(path.name for path in folder.iterdir() if path.suffix in kinds)
        found = f"; it has {', '.join(others[:5])}" if others else ""
        raise ExciseError(
            f"{where}: neither {WEIGHTS} nor {INDEX} in it{found}. Pickled weights are not read: save the model again "
            "with save_pretrained, or choose a revision that has safetensors."
        )
    return files


def side_files(folder: str | Path) -> list[Path]:
    """The files that a model needs beside its weights, as far as they are there, sorted by name.

    Raises:
        ExciseError: one of them is a link to nothing.
    """
    folder = Path(folder)  # glob leaves a link to nothing out where a pattern is a whole name
    found = sorted({path for pattern in SIDE_FILES for path in (folder / pattern, *folder.glob(pattern))})
    _refuse_dangling(found, str(folder))
    return [path for path in found if path.is_file()]


def _refuse_dangling(paths: Iterable[Path], where: str) -> None:
    for path in paths:
        if path.is_symlink() and not path.exists():
            raise ExciseError(f"{where}: {path.name} is a link to {path.readlink()}, which is not there")


def model_files(folder: str | Path) -> list[Path]:
    """Every file of a model, the index included, as far as it is there: what a change of the model changes."""
    folder = Path(folder)
    weights = [folder / name for name in (INDEX, *indexed(folder))]
    return sorted([*side_files(folder), *(path for path in weights if path.is_file())])


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Any]:
    """A safetensors file.

    Raises:
        ExciseError: it cannot be read, or is cut short.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="pt") as file:
            yield file
    except (OSError, SafetensorError) as error:
        if path.is_file() and path.stat().st_size < 1024 and path.read_bytes().startswith(LFS_POINTER):
            raise ExciseError(f"{path}: a pointer of Git LFS, not the file itself: run git lfs pull there") from error
        raise ExciseError(
            f"{path}: not a readable safetensors file ({error}); it may be incomplete: fetch or copy it again"
        ) from error


def stored(folder: str | Path) -> dict[str, Stored]:
    """The tensors of a model folder by name, from the headers of its files.

    Raises:
        ExciseError: a file is missing or cannot be read, or two files hold a tensor of one name.
    """
    found: dict[str, Stored] = {}
    for path in weight_files(folder):
        with opened(path) as file:
            for name in file.keys():  # noqa: SIM118 (not a dict)
                if name in found:
                    raise ExciseError(f"{folder}: {found[name].file.name} and {path.name} both hold {name}")
                part = file.get_slice(name)
                found[name] = Stored(path, tuple(part.get_shape()), str(part.get_dtype()))
    return found


def read_tensors(found: Mapping[str, Stored]) -> "Iterator[tuple[str, torch.Tensor]]":
    """The tensors themselves, one at a time, by name; file by file.

    Args:
        found: some of what ``stored`` gives.

    Raises:
        ExciseError: a file cannot be read.
    """
    by_file: dict[Path, list[str]] = {}
    for name, tensor in found.items():
        by_file.setdefault(tensor.file, []).append(name)
    for path, names in by_file.items():
        with opened(path) as file:
            for name in names:
                yield name, file.get_tensor(name)
