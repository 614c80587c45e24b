"""Exact patching and greedy removal beside one forward pass per node: how many times as fast, and the same numbers?

    python -m benchmarks.patching --model resources/models/SmolLM2-135M-Instruct --pairs find.jsonl

Processor seconds of one thread. One forward pass per node is what a hook on the whole model does: a head's part of the
input of the output projection, the MLP's output, or a neuron's activation is replaced by that of the corrupted prompt.
It runs twice: with all pairs as one batch, and with one pair at a time, as code that has no batches does. It is timed
on a sample of nodes and multiplied; so it is for the greedy removal, which decides over every head once. The pairs are
one batch of one length.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from excise.circuits.acdc import remove_heads
from excise.circuits.batches import PairBatch, make_batches
from excise.circuits.objectives import value
from excise.circuits.patching import neuron_effects, node_effects
from excise.circuits.run import Prepared, prepare
from excise.circuits.stream import Stream
from excise.data.pairs import read_pairs
from excise.models.loading import load_config, load_model

LD = "logit-difference"


def recorded(stream: Stream, ids: Tensor, module: nn.Module) -> Tensor:
    """What enters a module on these prompts."""
    found: list[Tensor] = []
    hook = module.register_forward_pre_hook(lambda _, given: found.append(given[0].clone()))
    with torch.no_grad():
        stream.model(input_ids=ids)
    hook.remove()
    return found[0]


def hooked(stream: Stream, given: Prepared, module: nn.Module, corrupt: Tensor, place: slice) -> Tensor:
    """Effect of one node by a whole forward pass with a part of what enters a module replaced, ``[pairs]``."""

    def patch(_: nn.Module, entering: tuple[Any, ...]) -> tuple[Any, ...]:
        changed = entering[0].clone()
        changed[..., place] = corrupt[..., place]
        return (changed,)

    hook = module.register_forward_pre_hook(patch)
    with torch.no_grad():
        logits = stream.model(input_ids=given.batch.clean).logits[:, -1]
    hook.remove()
    full = value(LD, given.clean_logits, given.batch, given.clean_logits)
    return (full - value(LD, logits, given.batch, given.clean_logits)).double()


def seconds(work: Callable[[], Any]) -> tuple[float, Any]:
    """Processor seconds, and what comes of it."""
    start = time.process_time()
    found = work()
    return time.process_time() - start, found


def one_by_one(
    stream: Stream, parts: Sequence[Prepared], nodes: Sequence[tuple[nn.Module, slice]], effects: Tensor
) -> tuple[float, float]:
    """Mean seconds of a node's forward passes, one for each part of the pairs, and its largest distance from ours.

    Ours are ``[pairs, nodes]``.
    """
    total, apart = 0.0, 0.0
    for (module, place), ours in zip(nodes, effects.T, strict=True):
        found = []
        for given in parts:
            corrupt = recorded(stream, given.batch.corrupt, module)
            taken, effect = seconds(partial(hooked, stream, given, module, corrupt, place))
            total += taken
            found.append(effect)
        apart = max(apart, float((torch.cat(found) - ours).abs().max()))
    return total / len(nodes), apart


def row(name: str, count: int, ours: float, one: Sequence[float], apart: float | None) -> None:
    """Print a row of the table."""
    difference = "" if apart is None else f"{apart:.1e}"
    others = " | ".join(f"{each * count:.1f} | {each * count / ours:.1f}" for each in one)
    print(f"| {name} | {count:,} | {ours:.1f} | {others} | {difference} |", flush=True)


def measured(stream: Stream, batch: PairBatch, alone: Sequence[PairBatch], neurons: int, sample: int) -> None:
    """The table; ``alone`` are the same pairs, each by itself."""
    graph, size, layers = stream.graph, stream.head_dim, stream.layers
    heads = [(layer, head) for layer in range(graph.layers) for head in range(graph.heads)]
    start = time.process_time()
    given = prepare(stream, batch)
    effects = node_effects(stream, given, LD)
    ours = time.process_time() - start
    few = heads[:: max(1, len(heads) // sample)]
    nodes = [(layers[layer].output, slice(head * size, (head + 1) * size)) for layer, head in few]
    columns = effects[:, [graph.source(layer, head) for layer, head in few]]
    singles = [prepare(stream, one) for one in alone]
    of_head, apart = zip(*(one_by_one(stream, parts, nodes, columns) for parts in ([given], singles)), strict=True)
    row("heads and MLPs", len(graph.sources), ours, of_head, max(apart))
    width, each = layers[0].mlp_output.in_features, max(1, neurons // graph.layers)
    chosen = [(layer, number * width // each) for layer in range(graph.layers) for number in range(each)]
    ours, effects = seconds(lambda: neuron_effects(stream, given, LD, chosen))
    places = range(0, len(chosen), max(1, len(chosen) // sample))
    nodes = [
        (layers[layer].mlp_output, slice(neuron, neuron + 1)) for layer, neuron in (chosen[place] for place in places)
    ]
    columns = effects[:, list(places)]
    of_neuron, apart = zip(*(one_by_one(stream, parts, nodes, columns) for parts in ([given], singles)), strict=True)
    row("neurons", len(chosen), ours, of_neuron, max(apart))
    ours, _ = seconds(lambda: remove_heads(stream, [given], objective=LD, form="total-drift", threshold=0.5))
    row("greedy removal of heads", len(heads), ours, of_head, None)


def main() -> None:
    """Read, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--pairs", type=Path, required=True)
    parser.add_argument("--neurons", type=int, default=240, help="neurons to patch, spread over the layers")
    parser.add_argument("--sample", type=int, default=12, help="nodes to patch by a forward pass each")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    _, pairs = read_pairs(arguments.pairs, load_config(arguments.model))
    stream = Stream(load_model(arguments.model, device="cpu"))
    batch = max(make_batches(pairs, 8), key=lambda one: (len(one.ids), one.clean.shape[1]))
    of = {pair.id: pair for pair in pairs}
    alone = [make_batches([of[name]], 1)[0] for name in batch.ids]
    prepare(stream, batch)  # what is made once
    print(f"{len(batch.ids)} pairs of {batch.clean.shape[1]} tokens that differ from token {batch.first} on\n")
    columns = ("", "nodes", "excise, s", "a pass per node, s", "times as fast", "per node and pair, s", "times as fast")
    print(f"| {' | '.join(columns)} | largest difference |\n{'|---' * (len(columns) + 1)}|")
    measured(stream, batch, alone, arguments.neurons, arguments.sample)


if __name__ == "__main__":
    main()
