"""Reference sets: read, check, and cut into batches whose composition depends on nothing but the set itself."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from excise.artefacts import Json, read_jsonl
from excise.errors import ExciseError
from excise.models.loading import max_positions


@dataclass(frozen=True)
class Sample:
    """One reference sample: ``input_ids[target_start:]`` is the continuation that explains itself."""

    id: str
    input_ids: tuple[int, ...]
    target_start: int


@dataclass(frozen=True)
class Batch:
    """Samples padded on the right, which is exact under causal attention: no token sees the padding.

    Attributes:
        index: place of the batch in its corpus.
        ids: sample ids.
        input_ids: ``[samples, tokens]``; padding is 0.
        mask: ``[samples, tokens]`` bool: not padding.
        counted: ``[samples, tokens]`` bool: the tokens whose values enter the sums; a subset of ``mask``.
        position_ids: ``[samples, tokens]``, from 0 at each sample's first token.
        target_start: first token of each sample's continuation, ``[samples]``.
    """

    index: int
    ids: tuple[str, ...]
    input_ids: torch.Tensor
    mask: torch.Tensor
    counted: torch.Tensor
    position_ids: torch.Tensor
    target_start: torch.Tensor

    def to(self, device: torch.device) -> "Batch":
        """The same batch on another device."""
        tensors = {name: getattr(self, name).to(device) for name in ("input_ids", "mask", "counted", "position_ids")}
        return Batch(index=self.index, ids=self.ids, target_start=self.target_start.to(device), **tensors)


def read_reference(path: str | Path, config: Any) -> tuple[Json, list[Sample]]:
    """Read a reference set (JSONL rows ``{id, input_ids, target_start}``) and check it against a model.

    Args:
        path: the file.
        config: the model's configuration.

    Returns:
        The file's provenance and its samples, in the file's order.

    Raises:
        ExciseError: the set is empty, an id occurs twice, or a sample does not fit the model; names the sample.
    """
    meta, rows = read_jsonl(path, required=("id", "input_ids", "target_start"))
    if not rows:
        raise ExciseError(f"{path}: no samples in it; an attribution over nothing has no value")
    limit = max_positions(config)
    samples, seen = [], set()
    for row in rows:
        sample = Sample(id=str(row["id"]), input_ids=tuple(row["input_ids"]), target_start=row["target_start"])
        where = f"{path}: sample {sample.id!r}"
        if sample.id in seen:
            raise ExciseError(f"{where} occurs twice; ids must be unique")
        if not all(isinstance(token, int) and 0 <= token < config.vocab_size for token in sample.input_ids):
            raise ExciseError(
                f"{where} has token ids outside this model's vocabulary (0 to {config.vocab_size - 1}): "
                "the set was tokenised for another model. Make it again with excise reference."
            )
        if not isinstance(sample.target_start, int) or not 1 <= sample.target_start < len(sample.input_ids):
            raise ExciseError(
                f"{where}: target_start {sample.target_start!r} must be at least 1 and below the number of tokens, "
                f"{len(sample.input_ids)}: a continuation needs a token before it and at least one of its own."
            )
        if limit is not None and len(sample.input_ids) > limit:
            raise ExciseError(
                f"{where} has {len(sample.input_ids)} tokens; this model has positions for {limit}. Shorten them."
            )
        seen.add(sample.id)
        samples.append(sample)
    return meta, samples


def make_batches(samples: Iterable[Sample], batch_size: int, excluded: Sequence[int] = ()) -> list[Batch]:
    """Sort samples by (length, id), so that little is padded, and cut them into consecutive batches.

    Args:
        samples: the whole corpus: batches must not depend on how it is sharded.
        batch_size: samples a batch; the last batch may have fewer.
        excluded: token ids that are not counted.

    Raises:
        ExciseError: the batch size is below 1, or a sample consists of excluded tokens only.
    """
    if batch_size < 1:
        raise ExciseError(f"--batch-size {batch_size}: must be at least 1")
    ordered = sorted(samples, key=lambda sample: (len(sample.input_ids), sample.id))
    groups = [ordered[start : start + batch_size] for start in range(0, len(ordered), batch_size)]
    return [pad(group, index=index, excluded=excluded) for index, group in enumerate(groups)]


def pad(samples: Sequence[Sample], *, index: int = 0, excluded: Sequence[int] = ()) -> Batch:
    """One batch of samples, padded on the right to the longest."""
    longest = max(len(sample.input_ids) for sample in samples)
    input_ids = torch.zeros(len(samples), longest, dtype=torch.long)
    mask = torch.zeros(len(samples), longest, dtype=torch.bool)
    for row, sample in enumerate(samples):
        input_ids[row, : len(sample.input_ids)] = torch.tensor(sample.input_ids)
        mask[row, : len(sample.input_ids)] = True
    counted = mask & ~torch.isin(input_ids, torch.tensor(list(excluded), dtype=torch.long))
    for row, sample in enumerate(samples):
        if not counted[row].any():
            raise ExciseError(f"sample {sample.id!r} consists of special tokens only; count them with --tokens all")
    return Batch(
        index=index,
        ids=tuple(sample.id for sample in samples),
        input_ids=input_ids,
        mask=mask,
        counted=counted,
        position_ids=torch.arange(longest).expand(len(samples), longest),
        target_start=torch.tensor([sample.target_start for sample in samples]),
    )


def shard(count: int, index: int, shards: int) -> range:
    """The ``index``-th (from 0) of ``shards`` contiguous, nearly equal parts of ``count`` batches."""
    return range(index * count // shards, (index + 1) * count // shards)
