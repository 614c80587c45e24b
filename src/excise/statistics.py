"""Sums over the samples of a corpus, which shards of one corpus add up to exactly, bit for bit.

Floating-point addition depends on its order, so the order is fixed here by the corpus alone. The batches of a corpus
are the leaves of a binary tree; a node is the sum of its two children, and is formed only when both are there::

    level 2              (0-3)
    level 1       (0-1)         (2-3)        (4-5)
    level 0     0       1     2       3    4       5     6

A shard holds the largest nodes that its batches fill. Whatever the borders of the shards and the order of merging,
the same nodes arise from the same additions. When all batches are there, the remaining nodes (here 0-3, 4-5 and 6)
are added from left to right, and the tree is gone: a complete file holds one array per sum and says nothing of shards.

*Rows* (values kept per sample) ride in the same tree: there adding means joining, left before right.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from excise.artefacts import Array, Json, read_arrays, write_arrays
from excise.errors import ExciseError

if TYPE_CHECKING:
    import torch

Node = tuple[int, int]
"""(level, index): the batches ``index * 2**level`` to ``(index + 1) * 2**level - 1``."""

Sums = dict[str, Array]

ROWS = "_rows"
"""Ending of the names of tensors that are joined, not added."""

COUNTS = ("samples", "tokens")

STAGES = ("attribute", "edges")
"""What writes such files."""


class Statistics:
    """Sums over some or all batches of a corpus.

    Attributes:
        meta: what the sums are of; equal for all that may be added together.
        batches: number of batches of the whole corpus.
        nodes: the largest filled nodes of the tree, each with its sums.
    """

    def __init__(self, meta: Json, batches: int, nodes: dict[Node, Sums] | None = None) -> None:
        self.meta, self.batches, self.nodes = meta, batches, nodes or {}
        self._totals: Sums | None = None

    def add(self, batch: int, sums: Sums) -> None:
        """Add one batch. ``sums`` holds ``samples`` and ``tokens`` (int64 scalars) beside the sums.

        Raises:
            ExciseError: this batch is in already, or does not exist.
        """
        self._insert((0, batch), sums)

    def _insert(self, node: Node, sums: Sums) -> None:
        first, last = _span(node)
        if not 0 <= first <= last < self.batches:
            raise ExciseError(f"batch {last} is not one of the {self.batches} of the corpus")
        for other in self.nodes:
            start, stop = _span(other)
            if start <= last and first <= stop:
                raise ExciseError(f"batches {max(first, start)} to {min(last, stop)} would be counted twice")
        level, index = node
        while (sibling := self.nodes.pop((level, index ^ 1), None)) is not None:
            sums = add(sibling, sums) if index % 2 else add(sums, sibling)
            level, index = level + 1, index // 2
        self.nodes[level, index] = sums

    def merge(self, other: "Statistics") -> None:
        """Add the sums of another part of the same corpus.

        Raises:
            ExciseError: it is of another model, method, corpus, seed or settings (named), or holds the same batches.
        """
        if other.batches != self.batches:
            raise ExciseError(f"one has {self.batches} batches in all, the other {other.batches}: different corpora")
        refuse_difference(self.meta, other.meta)
        if self._totals is not None or other._totals is not None:
            raise ExciseError("one of them is complete already: batches would be counted twice")
        for node, sums in sorted(other.nodes.items()):
            self._insert(node, sums)

    def missing(self) -> list[int]:
        """The batches that are not in."""
        if self._totals is not None:
            return []
        present = {batch for node in self.nodes for batch in range(_span(node)[0], _span(node)[1] + 1)}
        return [batch for batch in range(self.batches) if batch not in present]

    def totals(self) -> Sums:
        """The sums over the whole corpus.

        Raises:
            ExciseError: batches are missing; names them.
        """
        if missing := self.missing():
            listed = ", ".join(map(str, missing[:8])) + (", ..." if len(missing) > 8 else "")
            raise ExciseError(
                f"{len(missing)} of {self.batches} batches are missing ({listed}): give all shards of the corpus"
            )
        if self._totals is None:
            ordered = sorted(self.nodes, key=lambda node: _span(node)[0])
            total = self.nodes[ordered[0]]
            for node in ordered[1:]:
                total = add(total, self.nodes[node])
            self._totals = total
        return self._totals

    def write(self, path: str | Path) -> None:
        """Write to a safetensors file; a complete one does not tell how it was sharded."""
        if self.missing():
            tensors = {
                f"{name}@{level}.{index}": value
                for (level, index), sums in self.nodes.items()
                for name, value in sums.items()
            }
            counted = [int(sums["samples"]) for sums in self.nodes.values()]
            part = {"batches": self.batches, "missing": len(self.missing()), "samples": sum(counted)}
            write_arrays(path, {**self.meta, "part": part}, tensors)
        else:
            totals = self.totals()
            counts = {"batches": self.batches, **{name: int(totals[name]) for name in COUNTS}}
            write_arrays(path, {**self.meta, "counts": counts}, totals)

    @classmethod
    def read(cls, path: str | Path) -> "Statistics":
        """Read what ``write`` wrote.

        Raises:
            ExciseError: the file is no statistics file, or cannot be read.
        """
        meta, tensors = read_arrays(path)
        if meta.get("stage") not in STAGES:
            raise ExciseError(
                f"{path}: written by excise {meta.get('stage')}; statistics are written by {', '.join(STAGES)}"
            )
        if "counts" in meta:
            statistics = cls(meta, meta.pop("counts")["batches"])
            statistics._totals = tensors
            return statistics
        nodes: dict[Node, Sums] = {}
        for key, value in tensors.items():
            name, _, node = key.partition("@")
            level, index = map(int, node.split("."))
            nodes.setdefault((level, index), {})[name] = value
        return cls(meta, meta.pop("part")["batches"], nodes)


def _span(node: Node) -> tuple[int, int]:
    """First and last batch of a node."""
    level, index = node
    return index << level, ((index + 1) << level) - 1


def add(left: Sums, right: Sums) -> Sums:
    """Add two sets of sums, and join their rows, left before right.

    Raises:
        ExciseError: they are not the same sums.
    """
    if left.keys() != right.keys():
        raise ExciseError(f"different sums: {', '.join(sorted(left.keys() ^ right.keys()))} only in one of them")
    import numpy as np

    return {
        name: np.concatenate([value, right[name]]) if name.endswith(ROWS) else np.asarray(value + right[name])
        for name, value in left.items()
    }


def merge(parts: Iterable[Statistics]) -> Statistics:
    """Add parts of one corpus, in any order.

    Raises:
        ExciseError: they do not fit together; see ``Statistics.merge``.
    """
    first, *others = parts
    for other in others:
        first.merge(other)
    return first


def refuse_difference(first: Json, second: Json, ignored: Iterable[str] = ()) -> None:
    """Refuse two provenance blocks that differ.

    Args:
        first: one block.
        second: the other.
        ignored: dotted names of entries that may differ.

    Raises:
        ExciseError: they differ; names the first entry that does, and both values.
    """
    left, right = _flat(first), _flat(second)
    for name in sorted(left.keys() | right.keys()):
        if name not in ignored and left.get(name) != right.get(name):
            raise ExciseError(
                f"these do not belong together: {name} is {left.get(name)!r} in one, {right.get(name)!r} in the other"
            )


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(value, dict):
        return {prefix: value}
    return {
        key: leaf for name, item in value.items() for key, leaf in _flat(item, f"{prefix}.{name}".lstrip(".")).items()
    }


def batch_sums(
    values: dict[str, "torch.Tensor"],
    *,
    tokens: int,
    squares: Iterable[str] = (),
    rows: Iterable[str] = (),
    per_sample: bool = False,
) -> Sums:
    """What one batch adds, from the values of its samples.

    Args:
        values: ``{name: [samples, layers, width]}``.
        tokens: counted tokens.
        squares: names whose squares are summed too, as ``NAME_squared``: squares of per-sample values.
        rows: names that are kept per sample (``NAME_rows``) beside their sum.
        per_sample: keep every name per sample.
    """
    import numpy as np

    sums: Sums = {name: value.double().sum(0).numpy() for name, value in values.items()}
    sums |= {f"{name}_squared": values[name].square().sum(0).numpy() for name in squares}
    sums |= {f"{name}{ROWS}": value.numpy() for name, value in values.items() if per_sample or name in set(rows)}
    samples = len(next(iter(values.values())))
    return sums | {"samples": np.asarray(samples), "tokens": np.asarray(tokens)}
