"""Choose a circuit from the scores of edges: the best n, pruned to what is connected, and how stable it is."""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this stage."""
    from excise.config.circuit_options import Choosing
    from excise.config.options import add_options

    parser.add_argument("--edges", type=Path, required=True, help="scores of edges, safetensors, of excise edges")
    parser.add_argument(
        "--size", type=float, default=0.01, help="edges: a share of all below 1, or a number (default 0.01)"
    )
    add_options(parser, Choosing)
    parser.add_argument(
        "--other-seed", type=Path, help="scores of other pairs of the task, to compare the circuit with"
    )
    parser.add_argument("--output", type=Path, required=True, help="circuit, JSON")


def run(arguments: argparse.Namespace) -> None:
    """Read, choose, compare, write."""
    import logging

    from excise.artefacts import write_json
    from excise.circuits.choose import chosen, edge_count, greedy, jaccard, sure, top
    from excise.circuits.scores import described, read_scores, stability
    from excise.errors import ExciseError
    from excise.provenance import provenance

    scores = read_scores(arguments.edges)
    graph, values = scores.graph, scores.edges
    count = edge_count(arguments.size, graph)
    if arguments.sign_sure is not None:
        if not len(scores.resampled):
            raise ExciseError(f"--sign-sure: {arguments.edges} holds no resamples; score again with --resamples 8")
        values = sure(values, scores.resampled, arguments.sign_sure)
        if (left := int((values != 0).sum())) < count:
            raise ExciseError(f"--sign-sure {arguments.sign_sure}: {left} edges are left, fewer than {count}")
    pick = greedy if arguments.select == "greedy" else top
    kept = pick(values, graph, count, arguments.rank)
    if not kept.any():
        raise ExciseError(
            f"none of the best {count} edges leads from the input to the logits: the circuit is empty. Raise --size, "
            "or use --select greedy."
        )
    found = stability(scores, lambda given: chosen(given, graph, count, arguments.rank))
    if arguments.other_seed is not None:
        other = read_scores(arguments.other_seed)
        if other.graph != graph or other.meta["method"] != scores.meta["method"]:
            raise ExciseError("--other-seed: scores of another model or method")
        chosen_both = [chosen(given, graph, count, arguments.rank) for given in (scores.edges, other.edges)]
        found["other_seed"] = jaccard(*chosen_both)
    settings = {name: getattr(arguments, name) for name in ("size", "select", "rank", "sign_sure")}
    body = {"asked": count, "stability": found, **described(scores, kept)}
    facts = {name: scores.meta[name] for name in ("method", "model", "pairs", "graph")}
    meta = provenance("circuit", settings, **facts, scores=scores.meta["settings"])
    write_json(arguments.output, meta, body)
    sizes = body["sizes"]
    logging.getLogger(__name__).info(
        "%d edges between %d nodes, of the best %d of %d",
        sizes["edges"],
        sizes["nodes"],
        count,
        body["edges_in_graph"],
    )
