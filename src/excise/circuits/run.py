"""Run a circuit: every edge outside it carries what its source writes in another run.

A destination reads the sum over its sources of ``edge in the circuit ? current : replacement``, where *current* is what
the source writes in this very run. That is what the model's own residual stream holds plus, for each missing edge,
``replacement - current`` (Hanna et al. 2024; Conmy et al. 2023). The replacement is what the source writes in the run
of the corrupted prompt (``resample``), nothing (``zero``), or a mean over prompts and positions (``mean``).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from excise.circuits.batches import PairBatch, Prefix, embed
from excise.circuits.graph import SLOTS
from excise.circuits.stream import Stream, Taps
from excise.errors import ExciseError, unknown

ABLATIONS = ("resample", "zero", "mean")


class Writes(Taps):
    """What the sources of one run write. Use as taps of that run.

    Attributes:
        stream: the model.
        embedding: the residual stream that enters the first layer, ``[pairs, tokens, hidden]``.
        head_outputs: per layer ``[pairs, tokens, heads, head_dim]``, before the output projection.
        residuals: what the attention of each layer reads, ``[pairs, tokens, hidden]``.
        mlp_inputs: what the MLP of each layer reads.
        mlps: per layer ``[pairs, tokens, hidden]``.
        activations: per layer those of the MLP's neurons, ``[pairs, tokens, neurons]``.
        last: the residual stream before the final norm.
    """

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.embedding = torch.empty(0)
        self.head_outputs: list[torch.Tensor] = []
        self.residuals: list[torch.Tensor] = []
        self.mlp_inputs: list[torch.Tensor] = []
        self.mlps: list[torch.Tensor] = []
        self.activations: list[torch.Tensor] = []
        self.last = torch.empty(0)

    def residual(self, layer: int, value: torch.Tensor) -> None:
        """Keep it; what enters the first layer is a source."""
        if layer == 0:
            self.embedding = value
        self.residuals.append(value)

    def heads(self, layer: int, value: torch.Tensor) -> torch.Tensor:
        """Keep it."""
        self.head_outputs.append(value)
        return value

    def mlp_input(self, layer: int, value: torch.Tensor) -> torch.Tensor:
        """Keep it."""
        self.mlp_inputs.append(value)
        return value

    def neurons(self, layer: int, value: torch.Tensor) -> torch.Tensor:
        """Keep it."""
        self.activations.append(value)
        return value

    def mlp_output(self, layer: int, value: torch.Tensor) -> torch.Tensor:
        """Keep it."""
        self.mlps.append(value)
        return value

    def final(self, value: torch.Tensor) -> torch.Tensor:
        """Keep it."""
        self.last = value
        return value

    def of_heads(self, layer: int) -> torch.Tensor:
        """What the heads of a layer write, ``[pairs, tokens, heads, hidden]``."""
        return self.stream.head_writes(layer, self.head_outputs[layer])

    def stacked(self) -> torch.Tensor:
        """What all sources write, ``[pairs, tokens, sources, hidden]``."""
        parts = [self.embedding[:, :, None]]
        for layer, mlp in enumerate(self.mlps):
            parts += [self.of_heads(layer), mlp[:, :, None]]
        return torch.cat(parts, dim=2)


@dataclass(frozen=True)
class Prepared:
    """A batch of pairs, with what all its runs share.

    Attributes:
        batch: the pairs.
        prefix: what comes before the first position at which a replaced write can differ.
        embeddings: of the clean prompts from there on, ``[pairs, tokens, hidden]``.
        corrupt_embeddings: of the corrupted prompts.
        clean: writes of the clean run.
        corrupt: writes of the corrupted run.
        replacement: what the sources write instead, ``[pairs, tokens, sources, hidden]`` (or broadcast to it).
        clean_logits: logits of the answer, ``[pairs, vocabulary]``.
        corrupt_logits: those of the corrupted run.
    """

    batch: PairBatch
    prefix: Prefix
    embeddings: torch.Tensor
    corrupt_embeddings: torch.Tensor
    clean: Writes
    corrupt: Writes
    replacement: torch.Tensor
    clean_logits: torch.Tensor
    corrupt_logits: torch.Tensor

    def difference(self) -> torch.Tensor:
        """Clean minus replacement of every source, ``[pairs, tokens, sources, hidden]``."""
        return self.clean.stacked() - self.replacement


def prepare(
    stream: Stream, batch: PairBatch, ablation: str = "resample", means: torch.Tensor | None = None
) -> Prepared:
    """Run both prompts of every pair.

    Args:
        stream: the model.
        batch: the pairs.
        ablation: one of ``ABLATIONS``.
        means: for ``mean``: what each source writes on average, ``[sources, hidden]``.

    Raises:
        ExciseError: there is no such ablation.
    """
    if ablation not in ABLATIONS:
        raise unknown("ablation", ablation, ABLATIONS, where="--ablation")
    start = batch.first if ablation == "resample" else 0
    prefix = Prefix(stream, batch.clean, start)
    embeddings, corrupt_embeddings = embed(stream, batch.clean[:, start:]), embed(stream, batch.corrupt[:, start:])
    clean, corrupt = Writes(stream), Writes(stream)
    with torch.no_grad():
        clean_logits = prefix.run(embeddings, clean)
        corrupt_logits = prefix.run(corrupt_embeddings, corrupt)
        if ablation == "resample":
            replacement = corrupt.stacked()
        elif ablation == "zero":
            replacement = torch.zeros(len(stream.graph.sources), clean.embedding.shape[-1]).to(embeddings)
        elif means is None:
            raise ExciseError("ablation mean: the mean writes of the sources are missing")
        else:
            replacement = means.to(embeddings)
    return Prepared(
        batch, prefix, embeddings, corrupt_embeddings, clean, corrupt, replacement, clean_logits, corrupt_logits
    )


def mean_writes(stream: Stream, batches: Sequence[PairBatch]) -> torch.Tensor:
    """What each source writes on average over all positions of the corrupted prompts, float64 ``[sources, hidden]``."""
    total, count = torch.zeros(()), 0
    for batch in batches:
        writes = Writes(stream)
        with torch.no_grad():
            Prefix(stream, batch.corrupt, 0).run(embed(stream, batch.corrupt), writes)
        total = total + writes.stacked().sum((0, 1), dtype=torch.float64).cpu()
        count += batch.corrupt.numel()
    return total / count


class Interchange(Taps):
    """Taps that let every edge outside a circuit carry the replacement.

    Args:
        stream: the model.
        replacement: ``[pairs, tokens, sources, hidden]``, or broadcast to it.
        kept: the edges of the circuit, bool ``[sources, destinations]``; or of several circuits that run as one batch,
            ``[rows, sources, destinations]``.
        like: a tensor of the run, ``[rows * pairs, tokens, hidden]``: all pairs, row after row.
    """

    def __init__(self, stream: Stream, replacement: torch.Tensor, kept: torch.Tensor, like: torch.Tensor) -> None:
        self.stream = stream
        rows = 1 if kept.dim() == 2 else len(kept)
        shape = (rows, len(like) // rows, like.shape[1], len(stream.graph.sources), like.shape[-1])
        self.replacement = replacement.expand(shape)
        self.change = torch.empty(shape, dtype=like.dtype, device=like.device)
        self.missing = (stream.graph.edges & ~kept.view(rows, 1, 1, *kept.shape[-2:])).to(like)
        self.here = torch.empty(0)

    def resume(self, base: "Interchange", sources: int) -> None:
        """Take what the first sources of another run have written, of which only later ones are run again."""
        self.change[..., :sources, :] = base.change[..., :sources, :]

    def _written(self, first: int, value: torch.Tensor) -> None:
        """Note replacement - current of the sources from ``first`` on; ``value`` is ``[pairs, tokens, n, hidden]``."""
        place = slice(first, first + value.shape[2])
        value = value.reshape(*self.change.shape[:2], *value.shape[1:])
        torch.sub(self.replacement[..., place, :], value, out=self.change[..., place, :])

    def _read(self, sources: int, destinations: slice) -> torch.Tensor:
        """What the missing edges change of what destinations read, ``[pairs, tokens, destinations, hidden]``."""
        missing = self.missing[..., :sources, destinations].transpose(-1, -2)
        return (missing @ self.change[..., :sources, :]).flatten(0, 1)

    def residual(self, layer: int, value: torch.Tensor) -> None:
        """The embedding is a source; the rest is what the slots of this layer start from."""
        if layer == 0:
            self._written(0, value[:, :, None])
        self.here = value

    def slot(self, layer: int, slot: str, value: torch.Tensor) -> torch.Tensor:
        """Project what each head reads in this circuit."""
        graph = self.stream.graph
        first = graph.slots(layer).start + SLOTS.index(slot) * graph.heads
        read = self._read(graph.before_attention(layer), slice(first, first + graph.heads))
        return self.stream.project(layer, slot, self.stream.norm_attention(layer, self.here[:, :, None] + read))

    def heads(self, layer: int, value: torch.Tensor) -> torch.Tensor:
        """Heads are sources."""
        self._written(self.stream.graph.source(layer, 0), self.stream.head_writes(layer, value))
        return value

    def mlp_input(self, layer: int, value: torch.Tensor) -> torch.Tensor:
        """What the MLP reads in this circuit."""
        graph = self.stream.graph
        place = slice(graph.mlp(layer), graph.mlp(layer) + 1)
        return value + self._read(graph.before_mlp(layer), place)[:, :, 0]

    def mlp_output(self, layer: int, value: torch.Tensor) -> torch.Tensor:
        """MLPs are sources."""
        self._written(self.stream.graph.source(layer), value[:, :, None])
        return value

    def final(self, value: torch.Tensor) -> torch.Tensor:
        """What the head onto the vocabulary reads in this circuit."""
        return value + self._read(len(self.stream.graph.sources), slice(-1, None))[:, -value.shape[1] :, 0]


def run_circuit(stream: Stream, prepared: Prepared, kept: torch.Tensor) -> torch.Tensor:
    """Logits of the answer when only the edges of a circuit carry the clean run, ``[pairs, vocabulary]``.

    Args:
        stream: the model.
        prepared: the pairs.
        kept: bool ``[sources, destinations]``.
    """
    with torch.no_grad():
        taps = Interchange(stream, prepared.replacement, kept.to(prepared.embeddings.device), prepared.clean.embedding)
        return prepared.prefix.run(prepared.embeddings, taps)
