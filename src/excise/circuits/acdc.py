"""Greedy removal of heads, one after the other, in two named forms (after ACDC, Conmy et al. 2023, arXiv:2304.14997).

- ``total-drift``: from the first layer up, head 0 first. A head is removed if the objective stays within the
  threshold of that of the *whole model*: the drift of the final circuit is bounded by the threshold.
- ``per-step``: from the last layer down, last head first, as Conmy et al. visit edges. A head is removed if the
  objective falls, from the *current* circuit's, by less than the threshold: small losses may add up.

A removed head writes its replacement (zero, mean, or what it writes on the corrupted prompt). What comes before a layer
does not change while its heads are tried, and is run once. Several heads are tried in one batch: row i removes the next
i + 1 heads together, and the rows count up to the first head that must stay. Decisions are those of one at a time.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from excise.circuits.objectives import value as objective_value
from excise.circuits.run import Prepared
from excise.circuits.stream import Stream, Taps
from excise.errors import ExciseError, unknown

FORMS = ("total-drift", "per-step")


@dataclass(frozen=True)
class Removal:
    """What greedy removal found.

    Attributes:
        kept: bool ``[layers, heads]``.
        initial: mean objective of the whole model.
        final: mean objective of the circuit.
        all_removed: mean objective without any head.
        runs: batched forward passes that were made, from a layer on.
    """

    kept: torch.Tensor
    initial: float
    final: float
    all_removed: float
    runs: int


class Removed(Taps):
    """Taps that let removed heads write their replacement.

    Args:
        stream: the model.
        prepared: the pairs.
        removed: which heads, bool ``[rows, layers, heads]``; each row is a copy of the pairs.
    """

    def __init__(self, stream: Stream, prepared: Prepared, removed: torch.Tensor) -> None:
        self.stream, self.removed = stream, removed
        self.replacement = prepared.replacement
        self.pairs = len(prepared.batch.ids)
        self.change = self.last = torch.empty(0)
        self.calls = 0

    def heads(self, layer: int, value: torch.Tensor) -> torch.Tensor:
        """What the removal changes of what this layer's heads write together."""
        self.calls += 1
        graph = self.stream.graph
        place = slice(graph.source(layer, 0), graph.source(layer))
        written = self.stream.head_writes(layer, value).view(
            -1, self.pairs, *value.shape[1:3], self.replacement.shape[-1]
        )
        removed = self.removed[:, layer].to(written)[:, None, None, :, None]
        self.change = ((self.replacement[..., place, :] - written) * removed).sum(-2).flatten(0, 1)
        return value

    def attention_output(self, layer: int, value: torch.Tensor) -> torch.Tensor:
        """Add it."""
        return value + self.change

    def final(self, value: torch.Tensor) -> torch.Tensor:
        """Kept for the next layer."""
        self.last = value
        return value


class _Search:
    """The state of a removal: what is removed, and the residual streams that enter the layer at hand."""

    def __init__(self, stream: Stream, prepared: Sequence[Prepared], objective: str) -> None:
        self.stream, self.prepared, self.objective = stream, prepared, objective
        self.removed = torch.zeros(stream.graph.layers, stream.graph.heads, dtype=torch.bool)
        self.entering = [one.clean.residuals[0] for one in prepared]
        self.pairs = sum(len(one.batch.ids) for one in prepared)
        self.runs = 0

    def mean(self, layer: int, removed: torch.Tensor) -> list[float]:
        """Mean objective over all pairs, per row, run from ``layer`` on; ``removed`` is ``[rows, layers, heads]``."""
        totals = torch.zeros(len(removed), dtype=torch.float64)
        for one, residual in zip(self.prepared, self.entering, strict=True):
            taps = Removed(self.stream, one, removed)
            with torch.no_grad():
                logits = one.prefix.resumed(layer, residual.repeat(len(removed), 1, 1), taps)
                values = objective_value(self.objective, logits, one.batch, one.clean_logits)
            if taps.calls != self.stream.graph.layers - layer:
                raise ExciseError(f"heads of {taps.calls} layers were reached from layer {layer} on: hooks did not run")
            totals += values.double().cpu().view(len(removed), -1).sum(1)
        self.runs += 1
        means: list[float] = (totals / self.pairs).tolist()
        return means

    def next_layer(self, layer: int) -> None:
        """Let the removed heads of a layer change what enters the next one."""
        for place, one in enumerate(self.prepared):
            taps = Removed(self.stream, one, self.removed[None])
            with torch.no_grad():
                one.prefix.through(layer, self.entering[place], taps)
            self.entering[place] = taps.last


def remove_heads(
    stream: Stream,
    prepared: Sequence[Prepared],
    *,
    objective: str,
    form: str,
    threshold: float,
    together: int = 3,
) -> Removal:
    """Remove heads as long as the objective stays.

    Args:
        stream: the model.
        prepared: the pairs.
        objective: one of ``OBJECTIVES``.
        form: one of ``FORMS``.
        threshold: in the units of the objective.
        together: heads to try in one batch; does not change the result.

    Raises:
        ExciseError: there is no such form; removing every head changes the objective by no more than the threshold (the
            task does not depend on heads, or nothing was removed); or no head can be removed, or none is kept.
    """
    if form not in FORMS:
        raise unknown("form", form, FORMS, where="--form")
    search, layers = _Search(stream, prepared, objective), stream.graph.layers
    none, everything = search.mean(0, torch.stack([search.removed, ~search.removed]))
    whole = torch.cat([objective_value(objective, one.clean_logits, one.batch, one.clean_logits) for one in prepared])
    if abs(float(whole.double().mean()) - none) > 1e-3 * max(1.0, abs(none)):
        raise ExciseError(f"with no head removed the objective is {none:.4g}, but the model's is {whole.mean():.4g}")
    if abs(everything - none) <= threshold:
        raise ExciseError(
            f"removing every head changes the objective by {abs(everything - none):.3g} (from {none:.3g}), no more "
            f"than the threshold {threshold:g}: nothing would be kept. Lower --threshold, or choose another task."
        )
    current = none
    for layer in range(layers) if form == "total-drift" else reversed(range(layers)):
        if form == "per-step":
            search.entering = [one.clean.residuals[layer] for one in prepared]

        def stays(value: float, before: float) -> bool:
            return abs(value - none) < threshold if form == "total-drift" else before - value < threshold

        current = _layer(search, layer, current, stays, together, backwards=form == "per-step")
        if form == "total-drift":
            search.next_layer(layer)
    if not search.removed.any():
        raise ExciseError(f"no head can be removed within the threshold {threshold:g}: raise --threshold")
    if search.removed.all():
        raise ExciseError(f"every head was removed within the threshold {threshold:g} per step: lower --threshold")
    return Removal(~search.removed, none, current, everything, search.runs)


def _layer(
    search: _Search,
    layer: int,
    current: float,
    stays: Callable[[float, float], bool],
    together: int,
    *,
    backwards: bool,
) -> float:
    """Decide over the heads of one layer; returns the objective of what is left."""
    heads = list(range(search.removed.shape[1]))

    def without(group: Sequence[int]) -> list[float]:
        rows = search.removed.repeat(len(group), 1, 1)
        for row, head in enumerate(group):
            rows[row:, layer, head] = True
        return search.mean(layer, rows)

    def remove(head: int) -> None:
        search.removed[layer, head] = True

    return in_turn(heads[::-1] if backwards else heads, current, without, stays, remove, together)


def in_turn(
    waiting: Sequence[int],
    current: float,
    without: Callable[[Sequence[int]], list[float]],
    stays: Callable[[float, float], bool],
    remove: Callable[[int], None],
    together: int,
) -> float:
    """Decide over heads or edges one after the other, several in a batch; returns the objective of what is left.

    Args:
        waiting: what is decided over, in this order.
        current: the objective before.
        without: the objective without the first, the first two, ... of a group, beside what was removed before.
        stays: whether the first objective may follow on the second.
        remove: removes one for good.
        together: size of a group; does not change the result.
    """
    while waiting:
        group, done = waiting[:together], 0
        for one, value in zip(group, without(group), strict=True):
            done += 1
            if not stays(value, current):
                break
            remove(one)
            current = value
        waiting = waiting[done:]
    return current


def measured_without(
    stream: Stream, prepared: Sequence[Prepared], objective: str, removed: torch.Tensor
) -> dict[str, float]:
    """Mean objective and accuracy of other pairs, of the model and without some heads.

    Args:
        stream: the model.
        prepared: the pairs.
        objective: one of ``OBJECTIVES``.
        removed: bool ``[layers, heads]``.
    """
    sums: dict[str, float] = {}
    for one in prepared:
        with torch.no_grad():
            taps = Removed(stream, one, removed[None])
            without = one.prefix.resumed(0, one.clean.residuals[0], taps)
        for name, logits in (("model", one.clean_logits), ("circuit", without)):
            for measure in (objective, "accuracy"):
                known = "logit-difference" if measure == "accuracy" else measure
                values = objective_value(known, logits, one.batch, one.clean_logits).double()
                total = (values > 0).sum() if measure == "accuracy" else values.sum()
                key = f"{name}.{measure}"
                sums[key] = sums.get(key, 0.0) + float(total)
    pairs = sum(len(one.batch.ids) for one in prepared)
    return {"pairs": pairs, **{name: total / pairs for name, total in sums.items()}}
