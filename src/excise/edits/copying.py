"""Copy a model folder with a few tensors changed; every other byte stays as it is."""

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from excise.artefacts import Json, read_json
from excise.errors import ExciseError
from excise.models.files import INDEX, Stored, opened, side_files, weight_files

if TYPE_CHECKING:
    import torch


def copy_changed(
    folder: Path,
    target: Path,
    stored: Mapping[str, Stored],
    changed: Mapping[str, "torch.Tensor"],
    *,
    entries: Json,
) -> None:
    """Write a model folder's copy.

    Files that hold no changed tensor are copied byte for byte; in the others the bytes of the changed tensors are
    overwritten in place. A tensor that is new goes into the file of the tensor beside it, which is then written again.

    Args:
        folder: the model to copy.
        target: an existing, empty folder.
        stored: the tensors of ``folder`` (``models.files.stored``).
        changed: tensors by their names on disk, of the dtype and shape that they have there; new ones have a sister
            there whose name differs in its last part.
        entries: entries of config.json to set; nothing else in it is touched.

    Raises:
        ExciseError: config.json cannot be changed without changing more.
    """
    homes = {name: stored[name if name in stored else _sister(name)].file for name in changed}
    for source in weight_files(folder):
        here = {name: tensor for name, tensor in changed.items() if homes[name] == source}
        if here.keys() <= stored.keys():
            _patched(source, target / source.name, here)
        else:
            _extended(source, target / source.name, here)
    added = {name: tensor for name, tensor in changed.items() if name not in stored}
    if (folder / INDEX).is_file():
        if added:
            _index(folder / INDEX, target / INDEX, {name: (homes[name].name, added[name].nbytes) for name in added})
        else:
            shutil.copyfile(folder / INDEX, target / INDEX)
    for source in side_files(folder):
        place = target / source.relative_to(folder)
        place.parent.mkdir(exist_ok=True)
        shutil.copyfile(source, place)
    if entries:
        path = target / "config.json"
        path.write_bytes(with_entries(path.read_bytes().decode(), entries, str(folder / "config.json")).encode())


def _sister(name: str) -> str:
    return f"{name.rpartition('.')[0]}.weight"


def _bytes(tensor: "torch.Tensor") -> Any:
    import torch

    return tensor.detach().contiguous().flatten().view(torch.uint8).numpy().data


def _patched(source: Path, target: Path, changed: Mapping[str, "torch.Tensor"]) -> None:
    """Copy a safetensors file and overwrite tensors in it, which keep dtype and shape.

    The format: eight bytes with the length of the header, the header (JSON with ``data_offsets`` by tensor, counted
    from its end), the data.
    """
    shutil.copyfile(source, target)
    if not changed:
        return
    with open(target, "r+b") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        for name, tensor in changed.items():
            begin, end = header[name]["data_offsets"]
            data = _bytes(tensor)
            if len(data) != end - begin:
                raise ValueError(f"{name}: {len(data)} bytes, not {end - begin}")
            file.seek(8 + length + begin)
            file.write(data)


def _extended(source: Path, target: Path, changed: Mapping[str, "torch.Tensor"]) -> None:
    """Write a safetensors file again, with tensors changed and added."""
    from safetensors.torch import save_file

    with opened(source) as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        metadata = file.metadata()
    save_file({**tensors, **{name: tensor.contiguous() for name, tensor in changed.items()}}, target, metadata)


def _index(source: Path, target: Path, added: Mapping[str, tuple[str, int]]) -> None:
    """Copy an index with new tensors in it: (file, bytes) by name."""
    index = read_json(source)
    index["weight_map"] = dict(
        sorted({**index["weight_map"], **{name: file for name, (file, _) in added.items()}}.items())
    )
    if isinstance(size := index.get("metadata", {}).get("total_size"), int):
        index["metadata"]["total_size"] = size + sum(size for _, size in added.values())
    target.write_text(json.dumps(index, indent=2) + "\n", "utf-8")


def with_entries(text: str, entries: Json, where: str) -> str:
    """The text of a JSON object with entries set, and nothing else changed, spaces included.

    Raises:
        ExciseError: an entry cannot be placed: the result would say something else as well.
    """
    before = json.loads(text)
    for key, value in entries.items():
        pair = f"{json.dumps(key)}: {json.dumps(value)}"
        there = re.compile(rf"{re.escape(json.dumps(key))}\s*:\s*(true|false|null|-?\d+(?![\d.eE]))")
        if key in before:
            text = there.sub(pair, text, count=1)
        else:
            text = re.sub(r"\{(\s*)", lambda match: f"{{{match[1]}{pair},{match[1] or ' '}", text, count=1)  # noqa: B023
    if json.loads(text) != before | entries:
        raise ExciseError(f"{where}: {', '.join(entries)} cannot be set in it without changing more; set it by hand")
    return text
