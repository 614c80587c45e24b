"""Jobs that do a part of a stage's batches each, and the files of rows that they write, read together again."""

from collections.abc import Sequence
from pathlib import Path

from excise.artefacts import Json, read_jsonl
from excise.errors import ExciseError


def parse_shard(text: str) -> tuple[int, int]:
    """(index, number of shards) from ``I/N``, counted from 0.

    Raises:
        ExciseError: it does not read I/N, or there is no such shard.
    """
    index, _, count = text.partition("/")
    if not (index.isdecimal() and count.isdecimal() and int(index) < int(count)):
        raise ExciseError(f"--shard {text}: expected I/N with I from 0 to N-1, for example 0/4")
    return int(index), int(count)


def read_shards(stage: str, paths: Sequence[Path], counts: Sequence[str] = ()) -> tuple[Json, list[list[Json]]]:
    """The provenance of an unsharded run, and the rows of all its shards in their order.

    Args:
        stage: which stage wrote them.
        paths: the files, in any order. Each has ``shard`` (index, number of shards) in its provenance; a file without
            it is the only shard.
        counts: entries of the provenance that add up.

    Raises:
        ExciseError: the files are not all the shards of one run of the stage.
    """
    parts: dict[int, list[Json]] = {}
    first: Json = {}
    totals = dict.fromkeys(counts, 0)
    shards = 1
    for path in paths:
        meta, rows = read_jsonl(path)
        if meta.get("stage") != stage:
            raise ExciseError(f"{path}: not written by excise {stage}; give its shards")
        totals = {name: total + meta[name] for name, total in totals.items()}
        index, shards = meta.pop("shard", (0, 1))
        common = meta | dict.fromkeys(counts) | {"shards": shards}
        if common != (first := first or common):
            raise ExciseError(
                f"{path}: not a shard of the same run as {paths[0]} (settings, inputs, code or number of shards differ)"
            )
        if index in parts:
            raise ExciseError(f"{path}: shard {index}/{shards} was given already; each must be there once")
        parts[index] = rows
    if missing := [index for index in range(shards) if index not in parts]:
        raise ExciseError(f"--merge: of {shards} shards, {missing} were not given; each must be there once")
    del first["shards"]
    return first | totals, [parts[index] for index in range(shards)]
