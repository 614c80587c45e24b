"""Exports of folders as people keep them: links into a cache, read-only files, the line ends of another system."""

import json
from pathlib import Path
from typing import Any

from tests.conftest import make_model
from tests.unit.test_edits_copying import neurons


def test_an_export_of_read_only_links_with_foreign_line_ends_adds_its_entry_alone(tmp_path: Path, excise: Any) -> None:
    made = make_model(tmp_path / "made")
    config = made / "config.json"
    body = {key: value for key, value in json.loads(config.read_text()).items() if key != "mlp_bias"}
    config.write_bytes(json.dumps(body, indent=2).replace("\n", "\r\n").encode() + b"\r\n")
    more = {"tekken.json": b'{"a": 1}', "additional_chat_templates/tools.jinja": b"{{ 1 }}\r\n", "vocab.txt": b"\xff\n"}
    folder = tmp_path / "snapshot"
    (folder / "additional_chat_templates").mkdir(parents=True)
    for number, (name, data) in enumerate([*((p.name, p.read_bytes()) for p in made.iterdir()), *more.items()]):
        blob = tmp_path / f"blob-{number}"  # as the hub's cache keeps them
        blob.write_bytes(data)
        blob.chmod(0o444)
        (folder / name).symlink_to(blob)
    excise("apply", neurons(folder, tmp_path / "n.json", mean=True), folder, "--output", tmp_path / "out")
    for name, data in more.items():
        assert (tmp_path / "out" / name).read_bytes() == data
    written = (tmp_path / "out" / "config.json").read_bytes()
    assert written.replace(b'"mlp_bias": true,\r\n  ', b"", 1) == config.read_bytes()
    assert not any(path.is_symlink() for path in (tmp_path / "out").rglob("*"))
