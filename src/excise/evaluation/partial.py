"""Keep the finished batches of a long stage beside its output, so that a killed run goes on where it was."""

import json
from collections.abc import Iterable
from pathlib import Path

from excise.artefacts import Json
from excise.errors import ExciseError


class Partial:
    """Rows of an unfinished JSONL artefact, in ``.NAME.partial`` beside it.

    They count only for a run with the same provenance: same model, settings, inputs and code. A line that was being
    written when the run was killed is dropped.

    Args:
        output: the artefact.
        meta: its provenance.

    Attributes:
        rows: what an earlier run left; ``append`` does not add to it.
    """

    def __init__(self, output: Path, meta: Json) -> None:
        self.path = output.with_name(f".{output.name}.partial")
        header = _line({"meta": meta})
        lines = self.path.read_bytes().splitlines(keepends=True) if self.path.is_file() else []
        whole = lines[:-1] if lines and not lines[-1].endswith(b"\n") else lines
        same = bool(whole) and whole[0] == header
        self.rows: list[Json] = [json.loads(line) for line in whole[1:]] if same else []
        self._write("wb", header + b"".join(whole[1:] if same else []))

    def append(self, rows: Iterable[Json]) -> None:
        """Add the rows of a finished batch."""
        self._write("ab", b"".join(map(_line, rows)))

    def discard(self) -> None:
        """The artefact is complete."""
        self.path.unlink(missing_ok=True)

    def _write(self, mode: str, data: bytes) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with open(self.path, mode) as file:
                file.write(data)
        except OSError as error:
            raise ExciseError(f"{self.path}: cannot be written ({error.strerror or error}); make room there") from error


def _line(row: Json) -> bytes:
    return json.dumps(row, ensure_ascii=False, allow_nan=False).encode() + b"\n"
