"""Scores of all edges at once, to first order: what a source changes, times how much that matters where it is read.

    score(u -> v) = sum over positions of < clean_u - replacement_u , gradient of the objective at what v reads >

Positive: the edge supports the behaviour. The gradient is that of the residual stream *before* the norm, at this one
destination. Where gradients are taken at several points they are averaged first and multiplied once, for the score is
linear in them. All of it happens at the positions from the first difference on: before, no write differs.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from excise.circuits.graph import SLOTS
from excise.circuits.objectives import value as objective_value
from excise.circuits.run import Prepared
from excise.circuits.stream import Stream, Taps
from excise.errors import ExciseError
from excise.models.parts import output_projections

Scores = Callable[[Prepared], torch.Tensor]
"""From pairs to ``[pairs, sources, destinations]`` float64; 0 where there is no edge."""


class Gradients(Taps):
    """Taps that note the gradient at every destination when the run is differentiated.

    Attributes:
        residuals: per layer what its attention reads, ``[pairs, tokens, hidden]``.
        at: gradients by place: ``(layer, slot)`` ``[pairs, tokens, heads, head_dim]`` at queries, keys and values;
            ``(layer, "mlp")`` and ``(layers, "final")`` ``[pairs, tokens, hidden]``.
    """

    def __init__(self, stream: Stream) -> None:
        self.layers = stream.graph.layers
        self.residuals: list[torch.Tensor] = []
        self.at: dict[tuple[int, str], torch.Tensor] = {}

    def _noted(self, place: tuple[int, str], value: torch.Tensor) -> torch.Tensor:
        value = value.view_as(value)  # one reader of the residual stream, and no other

        def note(gradient: torch.Tensor) -> None:
            self.at[place] = gradient

        if value.requires_grad:
            value.register_hook(note)  # type: ignore[no-untyped-call]
        return value

    def residual(self, layer: int, value: torch.Tensor) -> None:
        """Kept for the norm's own derivative."""
        self.residuals.append(value.detach())

    def slot(self, layer: int, slot: str, value: torch.Tensor) -> torch.Tensor:
        """Note the gradient at each head's queries, keys or values."""
        return self._noted((layer, slot), value)

    def mlp_input(self, layer: int, value: torch.Tensor) -> torch.Tensor:
        """Note the gradient at what the MLP reads."""
        return self._noted((layer, "mlp"), value)

    def final(self, value: torch.Tensor) -> torch.Tensor:
        """Note the gradient at what the final norm reads."""
        return self._noted((self.layers, "final"), value)


def destination_gradients(
    stream: Stream, prepared: Prepared, objective: str, point: float, *, detached: Sequence[str] = ()
) -> list[torch.Tensor]:
    """The gradient of the objective at what every destination reads.

    Args:
        stream: the model.
        prepared: the pairs.
        objective: one of ``OBJECTIVES``.
        point: where: 0 is the corrupted prompt, 1 the clean one, between them their embeddings are mixed.
        detached: slots that no gradient reaches, by the rule in force.

    Returns:
        Per layer ``[pairs, tokens, 3 * heads + 1, hidden]`` (queries, keys, values, MLP), and last that of ``logits``,
        ``[pairs, tokens, 1, hidden]``.

    Raises:
        ExciseError: some destination got no gradient.
    """
    taps = Gradients(stream)
    first, second = prepared.corrupt_embeddings, prepared.embeddings
    mixed = second if point == 1 else first + point * (second - first)
    embeddings = mixed.detach().requires_grad_()
    with torch.enable_grad():
        logits = prepared.prefix.run(embeddings, taps)
        total = objective_value(objective, logits, prepared.batch, prepared.clean_logits).sum()
        torch.autograd.grad(total, embeddings)
    found = []
    for layer in range(stream.graph.layers):
        slots = [_slot_gradient(stream, taps, layer, slot, slot in detached) for slot in SLOTS]
        found.append(torch.cat([*slots, _required(taps, (layer, "mlp"))[:, :, None]], dim=2))
    return [*found, _required(taps, (stream.graph.layers, "final"))[:, :, None]]


def _required(taps: Gradients, place: tuple[int, str]) -> torch.Tensor:
    if place not in taps.at:
        raise ExciseError(f"layer {place[0]}, {place[1]}: no gradient came here; the forward pass is cut above it")
    return taps.at[place]


def _slot_gradient(stream: Stream, taps: Gradients, layer: int, slot: str, detached: bool) -> torch.Tensor:
    """Gradient at the residual stream that each head's slot reads, ``[pairs, tokens, heads, hidden]``."""
    residual = taps.residuals[layer][:, :, None].expand(-1, -1, stream.heads, -1)
    if detached:
        return torch.zeros_like(residual)
    inner = stream.pulled_back(layer, slot, _required(taps, (layer, slot)))
    with torch.enable_grad():
        probe = residual.detach().requires_grad_()
        (outer,) = torch.autograd.grad(stream.norm_attention(layer, probe), probe, inner)
    return outer


def contracted(stream: Stream, prepared: Prepared, gradients: Sequence[torch.Tensor]) -> torch.Tensor:
    """Scores from gradients, float64 ``[pairs, sources, destinations]`` on the CPU."""
    graph = stream.graph
    difference = prepared.difference().transpose(1, 2).flatten(2)  # [pairs, sources, tokens * hidden]
    scores = torch.zeros(len(difference), *graph.edges.shape, dtype=torch.float64)
    for layer, gradient in enumerate(gradients[:-1]):
        place = slice(graph.slots(layer).start, graph.mlp(layer) + 1)
        sources = graph.before_mlp(layer)
        scores[:, :sources, place] = _product(difference[:, :sources], gradient)
    scores[:, :, -1:] = _product(difference, gradients[-1])
    return scores * graph.edges


def _product(difference: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
    return (difference @ gradient.transpose(1, 2).flatten(2).transpose(1, 2)).double().cpu()


@contextlib.contextmanager
def scoring(stream: Stream, *, objective: str, points: Sequence[float], rule: str | None) -> Iterator[Scores]:
    """Yield what scores the edges of prepared pairs.

    Args:
        stream: the model.
        objective: one of ``OBJECTIVES``.
        points: where gradients are taken; see ``destination_gradients``.
        rule: a rule of ``attribution.lxt_patch`` for the backward pass; None for plain gradients.
    """
    with contextlib.ExitStack() as stack:
        detached: tuple[str, ...] = ()
        if rule is not None:
            from excise.attribution.lxt_patch import RULES, patched

            patch = stack.enter_context(patched(stream.model, rule))
            detached = ("q", "k") if RULES[rule].attention == "cp_wrap_attention_forward" else ()
            if patch.halve:
                _halve(stream.model, stack)

        def scores(prepared: Prepared) -> torch.Tensor:
            total: list[torch.Tensor] = []
            for point in points:
                found = destination_gradients(stream, prepared, objective, point, detached=detached)
                total = [a.add_(b) for a, b in zip(total, found, strict=True)] if total else found
            if rule is not None:
                patch.verify_ran()
            return contracted(stream, prepared, [gradient / len(points) for gradient in total])

        yield scores


def _halve(model: Any, stack: contextlib.ExitStack) -> None:
    """Half of the gradient below the product of gate and up (uniform rule)."""

    def halved(_: Any, inputs: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
        return (inputs[0] / 2 + inputs[0].detach() / 2,)

    for projection in output_projections(model):
        stack.callback(projection.register_forward_pre_hook(halved).remove)
