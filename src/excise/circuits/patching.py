"""Exact patching: what the objective loses when one source writes its replacement, everything after it run again.

Many nodes are run at once, each as a copy of the pairs: those of one layer share what comes before it, so a run begins
after their layer; all runs share the prefix that no replacement changes; and logits are made for the answer only.
Replacing what a node writes is the same as leaving out all its outgoing edges.
"""

from collections.abc import Sequence

import torch

from excise.circuits.objectives import value as objective_value
from excise.circuits.run import Prepared, run_circuit
from excise.circuits.stream import Stream, scale

ROWS = 64
"""Prompts run at once: enough to fill a CPU's caches, and few enough for its memory."""


def node_effects(
    stream: Stream, prepared: Prepared, objective: str, *, nodes: Sequence[int] | None = None, rows: int = ROWS
) -> torch.Tensor:
    """Effect of every source: objective of the clean run minus that with the source replaced.

    Args:
        stream: the model.
        prepared: the pairs.
        objective: one of ``OBJECTIVES``.
        nodes: indices of sources; all by default. The others are 0.
        rows: prompts to run at once.

    Returns:
        float64 ``[pairs, sources]``; positive: the node supports the behaviour.
    """
    graph = stream.graph
    wanted = set(range(len(graph.sources)) if nodes is None else nodes)
    effects = torch.zeros(len(prepared.batch.ids), len(graph.sources), dtype=torch.float64)
    full = objective_value(objective, prepared.clean_logits, prepared.batch, prepared.clean_logits)
    if 0 in wanted:
        kept = graph.edges.clone()
        kept[0] = False
        effects[:, 0] = (full - _objective(objective, prepared, run_circuit(stream, prepared, kept))).double().cpu()
    for layer in range(graph.layers):
        places = [place for place in range(graph.source(layer, 0), graph.source(layer) + 1) if place in wanted]
        changes = _changes(stream, prepared, layer)
        for group in _groups(places, rows // len(effects)):
            chosen = changes[:, :, [place - graph.source(layer, 0) for place in group]]
            logits = resumed(stream, prepared, layer, chosen, heads=[place != graph.source(layer) for place in group])
            values = _objective(objective, prepared, logits).view(len(group), -1)
            effects[:, group] = (full - values).T.double().cpu()
    return effects


def _changes(stream: Stream, prepared: Prepared, layer: int) -> torch.Tensor:
    """Replacement - clean of the heads and the MLP of a layer, ``[pairs, tokens, heads + 1, hidden]``."""
    graph = stream.graph
    place = slice(graph.source(layer, 0), graph.source(layer) + 1)
    clean = torch.cat([prepared.clean.of_heads(layer), prepared.clean.mlps[layer][:, :, None]], dim=2)
    return prepared.replacement[..., place, :] - clean


def _groups(places: Sequence[int], size: int) -> list[list[int]]:
    size = max(1, size)
    return [list(places[start : start + size]) for start in range(0, len(places), size)]


def _objective(objective: str, prepared: Prepared, logits: torch.Tensor) -> torch.Tensor:
    return objective_value(objective, logits, prepared.batch, prepared.clean_logits)


def resumed(
    stream: Stream, prepared: Prepared, layer: int, changes: torch.Tensor, heads: Sequence[bool]
) -> torch.Tensor:
    """Logits when something is added to what a layer writes, ``[changes * pairs, vocabulary]``, change by change.

    Args:
        stream: the model.
        prepared: the pairs.
        layer: the layer.
        changes: what is added, each on its own, ``[pairs, tokens, changes, hidden]``.
        heads: for each change whether a head makes it, so that the MLP of this layer reads it too.
    """
    clean = prepared.clean
    after = clean.residuals[layer + 1] if layer + 1 < stream.graph.layers else clean.last
    changed = changes.permute(2, 0, 1, 3)  # [changes, pairs, tokens, hidden]
    read = torch.tensor(heads, device=changed.device) & (not stream.graph.parallel)
    entering = after + changed
    with torch.no_grad():
        if read.any():
            middle = clean.mlp_inputs[layer] + changed[read]
            entering[read] = middle + stream.mlp_write(layer, middle)
        return prepared.prefix.resumed(layer + 1, entering.flatten(0, 1))


def neuron_effects(
    stream: Stream, prepared: Prepared, objective: str, neurons: Sequence[tuple[int, int]], *, rows: int = ROWS
) -> torch.Tensor:
    """Effect of single neurons of the MLPs, as of ``node_effects``.

    Args:
        stream: the model.
        prepared: the pairs, with ``resample`` ablation.
        objective: one of ``OBJECTIVES``.
        neurons: (layer, neuron).
        rows: prompts to run at once.

    Returns:
        float64 ``[pairs, neurons]``.
    """
    effects = torch.zeros(len(prepared.batch.ids), len(neurons), dtype=torch.float64)
    full = _objective(objective, prepared, prepared.clean_logits)
    for layer in sorted({layer for layer, _ in neurons}):
        places = [place for place, (at, _) in enumerate(neurons) if at == layer]
        for group in _groups(places, rows // len(effects)):
            changes = neuron_changes(stream, prepared, layer, [neurons[place][1] for place in group])
            logits = resumed(stream, prepared, layer, changes, heads=[False] * len(group))
            values = _objective(objective, prepared, logits).view(len(group), -1)
            effects[:, group] = (full - values).T.double().cpu()
    return effects


def neuron_changes(stream: Stream, prepared: Prepared, layer: int, neurons: Sequence[int]) -> torch.Tensor:
    """Corrupted - clean of what neurons write, ``[pairs, tokens, neurons, hidden]``."""
    parts = stream.layers[layer]
    weight = stream.weight(parts.mlp_output)[:, list(neurons)].T  # [neurons, hidden]
    written = []
    for writes in (prepared.corrupt, prepared.clean):
        activations = writes.activations[layer]
        value = activations[:, :, list(neurons), None] * weight
        if "mlp_write" in parts.norms:
            value = value * scale(parts.norms["mlp_write"], parts.mlp_output(activations))[:, :, None]
        written.append(value)
    return written[0] - written[1]
