"""Patch every head and MLP exactly, one after the other: what the task loses without what it writes.

With --neurons: also the strongest neurons of the MLPs by attribution patching, and a random sample of the others, which
says what was missed. With --edges: how well cheap scores of edges agree, summed over the outgoing edges of each node.
"""

import argparse
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from excise.artefacts import Json
from excise.stages.circuit_options import PACKAGES, Opened, add_pair_arguments, graph_meta, opened

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Numbers = NDArray[np.float64]

logger = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this stage."""
    add_pair_arguments(parser)
    parser.add_argument("--edges", type=Path, nargs="*", default=[], help="scores of edges to compare with")
    parser.add_argument("--neurons", type=int, default=0, help="strongest neurons to patch exactly too (default 0)")
    parser.add_argument("--sampled", type=int, default=0, help="further neurons, drawn at random (default 0)")
    parser.add_argument("--seed", type=int, default=0, help="seed of that draw (default 0)")
    parser.add_argument("--rows", type=int, default=64, help="prompts to run at once (default 64)")
    parser.add_argument("--output", type=Path, required=True, help="effects, JSON")
    parser.add_argument("--csv", type=Path, help="the same as a table, a node per line")


def run(arguments: argparse.Namespace) -> None:
    """Read, patch, compare, write."""
    import torch

    from excise.artefacts import replacing, write_json
    from excise.circuits.patching import node_effects
    from excise.circuits.run import prepare
    from excise.circuits.scores import read_scores
    from excise.errors import ExciseError
    from excise.models.loading import input_device
    from excise.progress import Progress
    from excise.provenance import provenance

    _refuse(arguments)
    cheap = [read_scores(path) for path in arguments.edges]
    found = opened(arguments)
    for scores in cheap:
        for name in ("model", "pairs"):
            if scores.meta[name] != found.meta[name]:
                raise ExciseError(f"--edges: scores of another {name.removesuffix('s')}; score these pairs first")
    stream, parts = found.stream, []
    with Progress(sum(len(batch.ids) for batch in found.batches), "pairs", "patching") as progress:
        for batch in found.batches:
            here = prepare(stream, batch.to(input_device(stream.model)), arguments.ablation, found.means)
            parts.append(node_effects(stream, here, arguments.objective, rows=arguments.rows))
            progress.advance(len(batch.ids))
    effects = torch.cat(parts).numpy()
    names = stream.graph.sources
    compared = {scores.meta["method"]: scores.edges.sum(1).numpy() for scores in cheap}
    nodes = _rows_of_nodes(names, effects, compared)
    choice = {name: getattr(arguments, name) for name in ("neurons", "sampled", "seed")}
    neurons = patched_neurons(found, **choice) if arguments.neurons + arguments.sampled else None
    meta = provenance(
        "patch",
        {**found.settings, **choice},
        packages=PACKAGES,
        method="patching",
        graph=graph_meta(stream),
        **found.meta,
    )
    ids = [name for batch in found.batches for name in batch.ids]
    agree = _agreement(names, effects.mean(0), compared)
    body = {"nodes": nodes, "neurons": neurons, "agreement": agree, "pairs": ids, "effects": effects.tolist()}
    write_json(arguments.output, meta, body)
    if arguments.csv is not None:
        lines = [",".join(nodes[0]), *(",".join(str(value) for value in node.values()) for node in nodes)]
        with replacing(arguments.csv) as file:
            file.write("\n".join([*lines, ""]).encode())
    strongest = sorted(nodes[1:], key=lambda node: -abs(node["exact"]))[:8]
    logger.info("strongest: %s", ", ".join(f"{node['name']} {node['exact']:+.2f}" for node in strongest))


def _refuse(arguments: argparse.Namespace) -> None:
    """Refuse numbers out of range, and neurons where attribution patching cannot rank them.

    Raises:
        ExciseError: it is so.
    """
    from excise.errors import ExciseError

    neurons = arguments.neurons + arguments.sampled
    if arguments.rows < 1 or min(arguments.neurons, arguments.sampled) < 0:
        raise ExciseError("--rows must be at least 1, --neurons and --sampled at least 0")
    if neurons and arguments.objective == "kl":
        raise ExciseError("--neurons: attribution patching ranks them, and the gradient of kl is zero at the clean run")
    if neurons and arguments.ablation != "resample":
        raise ExciseError("--neurons: neurons are patched with their activation on the corrupted prompt (resample)")


def _rows_of_nodes(names: Sequence[str], effects: "Numbers", compared: Mapping[str, "Numbers"]) -> list[Json]:
    """Each node with its mean effect over the pairs ``[pairs, nodes]``, and what cheap scores say of it."""
    from excise.circuits.graph import short_name

    spread = effects.std(0, ddof=1) / len(effects) ** 0.5 if len(effects) > 1 else 0 * effects[0]
    return [
        {
            "node": name,
            "name": short_name(name),
            "exact": float(effects[:, index].mean()),
            "standard_error": float(spread[index]),
            **{method: float(values[index]) for method, values in compared.items()},
        }
        for index, name in enumerate(names)
    ]


def _agreement(names: Sequence[str], exact: "Numbers", compared: Mapping[str, "Numbers"]) -> Json:
    """How well cheap scores agree with exact effects: over all nodes but the input, which is everything; by kind."""
    import numpy as np

    from excise.circuits.agreement import agreement

    groups = {
        "all": np.arange(1, len(names)),
        "heads": np.array([index for index, name in enumerate(names) if name.startswith("a")]),
        "mlps": np.array([index for index, name in enumerate(names) if name.startswith("m")]),
    }
    return {
        method: {group: agreement(exact[places], values[places]) for group, places in groups.items()}
        for method, values in compared.items()
    }


def patched_neurons(found: Opened, *, neurons: int, sampled: int, seed: int) -> Json:
    """The strongest neurons and a sample of the others: score and exact effect of each, and how well they agree."""
    import torch

    from excise.circuits.agreement import agreement
    from excise.circuits.neurons import neuron_scores, where_it_matters
    from excise.circuits.patching import neuron_effects
    from excise.progress import Progress

    prepared, objective = found.prepared(), found.settings["objective"]
    scores = torch.cat([neuron_scores(one, objective) for one in prepared]).mean(0)
    width = scores.shape[1]
    strongest, others = where_it_matters(scores.flatten(), neurons, sampled, seed)
    groups = {"strongest": strongest, "sampled": others}
    places = [divmod(place, width) for group in groups.values() for place in group]
    effects = []
    with Progress(len(prepared), "batches", f"patching {len(places)} neurons") as progress:
        for one in prepared:
            effects.append(neuron_effects(found.stream, one, objective, places))
            progress.advance()
    exact = torch.cat(effects).mean(0)
    rows: list[Json] = []
    agree: Json = {}
    for name, group in groups.items():
        here, cheap = exact[len(rows) : len(rows) + len(group)], scores.flatten()[group]
        if group:
            agree[name] = {**agreement(here.numpy(), cheap.numpy()), "largest": float(here.abs().max())}
        rows += [
            {"layer": place // width, "neuron": place % width, "group": name, "score": float(s), "exact": float(e)}
            for place, s, e in zip(group, cheap, here, strict=True)
        ]
    return {"of": scores.numel(), "agreement": agree, "rows": rows}
