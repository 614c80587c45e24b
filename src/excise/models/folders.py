"""Make a model folder: links to the files of a local or hub model, or a converted GGUF file."""

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from excise.artefacts import Json, beside, sha256_file
from excise.errors import ExciseError
from excise.models.files import model_files, side_files, weight_files
from excise.models.loading import SOURCE_FILE


def link(source: Path, target: Path, name: str, *, copy: bool = False) -> None:
    """Link what a model needs into an existing folder.

    Args:
        source: a complete model folder.
        target: where the links go.
        name: what messages call the source.
        copy: copy the files instead, where the source is there for a moment only.

    Raises:
        ExciseError: the source is not a complete model folder.
    """
    if not (source / "config.json").is_file():
        raise ExciseError(f"{name}: no config.json in it; not a Hugging Face model folder")
    weight_files(source, name)  # all of them are there
    for path in model_files(source):
        place = target / path.relative_to(source)
        place.parent.mkdir(exist_ok=True)
        if copy:
            shutil.copyfile(path, place)
        else:
            place.symlink_to(os.path.abspath(path))  # noqa: PTH100 (keeps links of the hub's cache)


def refuse_foreign(output: Path) -> None:
    """Refuse to replace a folder that excise did not make: what is in it may exist only once.

    Raises:
        ExciseError: there is a file of that name, or a folder with something in it but no ``excise.json``.
    """
    if output.is_dir() and ((output / SOURCE_FILE).is_file() or not any(output.iterdir())):
        return
    if output.exists():
        raise ExciseError(
            f"{output}: is there already and was not made by excise (no {SOURCE_FILE} in it), so it is not replaced. "
            "Name another folder, or remove it first."
        )


@contextlib.contextmanager
def replacing_folder(output: Path) -> Iterator[Path]:
    """A folder beside ``output`` that takes its name only when the block ends without an error.

    Raises:
        ExciseError: the folder cannot be written, or the disk is full, or the old one was not made by excise; the old
            one is untouched.
    """
    refuse_foreign(output)
    temporary = None
    try:
        temporary = beside(output)
        temporary.mkdir(parents=True)
        yield temporary
        if output.is_symlink():
            output.unlink()
        elif output.exists():
            shutil.rmtree(output)
        temporary.replace(output)
    except ExciseError as error:
        raise ExciseError(str(error).replace(str(temporary), str(output))) from error  # that name is gone by then
    except OSError as error:
        raise ExciseError(
            f"{output}: cannot be written ({error.strerror or error}); make room or choose another folder, then run "
            "the same command again"
        ) from error
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


def checksums(folder: Path) -> dict[str, str]:
    """SHA-256 of the files of a model folder beside its weights (these have the fingerprint)."""
    return {path.relative_to(folder).as_posix(): sha256_file(path) for path in side_files(folder)}


def write_source(path: Path, facts: Json) -> None:
    """Write ``excise.json``."""
    path.write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n", "utf-8")
