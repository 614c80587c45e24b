"""The generations of a variant, prompt by prompt, and the files that go with them row by row."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from excise.artefacts import Json, read_jsonl, sha256_file
from excise.errors import ExciseError


@dataclass(frozen=True, kw_only=True)
class Generations:
    """One file of generations.

    Attributes:
        path: the file.
        sha256: of its bytes; files made from it name it.
        meta: its provenance.
        rows: as in the file.
        prompts: row numbers of each prompt, in the order of the file; all have as many generations.
    """

    path: Path
    sha256: str
    meta: Json
    rows: Sequence[Json]
    prompts: Sequence[Sequence[int]]

    @property
    def items(self) -> list[str]:
        """Ids of the prompts: the items of every task that judges generations."""
        return [str(self.rows[group[0]]["id"]) for group in self.prompts]

    @property
    def number(self) -> int:
        """Generations per prompt."""
        return len(self.prompts[0])

    @property
    def groups(self) -> dict[str, list[Any]]:
        """What is known of the prompts: category and toxicity, where any has them."""
        first = [self.rows[group[0]] for group in self.prompts]
        known = [key for key in ("category", "toxicity") if any(key in row for row in first)]
        return {key: [row.get(key) for row in first] for key in known}

    def beside(self, path: Path, numbers: Sequence[str]) -> tuple[Json, list[Json | None]]:
        """A file made from these generations.

        Args:
            path: JSONL with a row for each generation, in the same order.
            numbers: keys that must hold finite numbers.

        Returns:
            Its provenance, and one row per generation; None for those that were not read.

        Raises:
            ExciseError: it was made from other generations.
        """
        meta, found = read_jsonl(path, ("id", "draw"), numbers=numbers)
        settings = meta.get("settings", {})
        count = settings.get("num_generations")  # the first of each prompt, where not all were read
        read = [count is None or row["draw"] < count for row in self.rows]
        keys = [(row["id"], row["draw"]) for row, there in zip(self.rows, read, strict=True) if there]
        if settings.get("generations", self.sha256) != self.sha256 or keys != [(r["id"], r["draw"]) for r in found]:
            raise ExciseError(f"{path}: made from other generations than the ones given; make it again from these")
        rest = iter(found)
        return meta, [next(rest) if there else None for there in read]


def read_generations(path: Path) -> Generations:
    """Read generations.

    Raises:
        ExciseError: there is nothing, or prompts differ in their number of generations.
    """
    meta, rows = read_jsonl(path, ("id", "draw", "completion", "completion_ids"))
    groups: dict[object, list[int]] = {}
    for index, row in enumerate(rows):
        groups.setdefault(row["id"], []).append(index)
    numbers = {len(group) for group in groups.values()}
    if len(numbers) != 1 or len({(row["id"], row["draw"]) for row in rows}) < len(rows):
        raise ExciseError(
            f"{path}: every prompt needs the same number of different draws, found {sorted(numbers)}; the maximum over "
            "draws means nothing otherwise"
        )
    return Generations(path=path, sha256=sha256_file(path), meta=meta, rows=rows, prompts=list(groups.values()))
