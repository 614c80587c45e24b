"""Judge circuits on pairs that had no part in finding them: how much of the task they carry.

With --edges: circuits of ten sizes in both rankings, and the areas CPR and CMD as MIB integrates them. With --circuit:
that circuit, and what is left of the task without it.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from excise.artefacts import Json
from excise.stages.circuit_options import PACKAGES, add_pair_arguments, opened

if TYPE_CHECKING:
    import torch

    from excise.circuits.judge import Ends
    from excise.circuits.run import Prepared
    from excise.circuits.stream import Stream


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this stage."""
    add_pair_arguments(parser)
    parser.add_argument("--edges", type=Path, help="scores of edges, safetensors: judge circuits of ten sizes")
    parser.add_argument("--circuit", type=Path, help="a circuit, JSON: judge this one")
    parser.add_argument("--seed", type=int, default=0, help="seed of the bootstrap over pairs (default 0)")
    parser.add_argument("--output", type=Path, required=True, help="faithfulness, JSON")


def run(arguments: argparse.Namespace) -> None:
    """Read, run, integrate, write."""
    import logging

    from excise.artefacts import read_json, write_json
    from excise.circuits.faithfulness import refuse_no_gap
    from excise.circuits.judge import ends
    from excise.circuits.scores import read_scores, refuse_other_task
    from excise.errors import ExciseError
    from excise.provenance import provenance

    if (arguments.edges is None) == (arguments.circuit is None):
        raise ExciseError("give --edges or --circuit, and not both")
    scores = read_scores(arguments.edges) if arguments.edges is not None else None
    circuit = read_json(arguments.circuit) if arguments.circuit is not None else None
    if circuit is not None and circuit.get("meta", {}).get("stage") not in ("circuit", "remove-edges"):
        raise ExciseError(f"{arguments.circuit}: not a circuit of excise circuit or remove-edges")
    found = opened(arguments)
    known = scores.meta if scores is not None else circuit["meta"] if circuit is not None else {}
    refuse_other_task(known, found.meta)
    prepared = found.prepared()
    both = ends(found.stream, prepared, arguments.objective)
    refuse_no_gap(both.full, both.empty)
    if scores is not None:
        body = curves(found.stream, prepared, arguments, both, scores.edges)
        said = {rank: row["areas"] for rank, row in body["rankings"].items()}
        _warn_of_empty(body)
        text = f"CPR {said['signed']['cpr']:.3f} (signed), CMD {said['absolute']['cmd']:.3f} (absolute)"
    else:
        body = single(found.stream, prepared, arguments, both, circuit or {})
        text = f"faithfulness {body['faithfulness']:.3f}, without it {body['complement']['faithfulness']:.3f}"
    meta = provenance(
        "faithfulness",
        {**found.settings, "seed": arguments.seed},
        packages=PACKAGES,
        method=known["method"],
        found_on=known["pairs"],
        **found.meta,
    )
    model = {"full": float(both.full.mean()), "empty": float(both.empty.mean()), "pairs": both.full.size}
    values = {"ids": both.ids, "full": both.full.tolist(), "empty": both.empty.tolist()}
    write_json(arguments.output, meta, {"model": model, **body, "values": values | body.pop("values")})
    logging.getLogger(__name__).info("%s on %d pairs: %s", known["method"], both.full.size, text)


def _warn_of_empty(body: Json) -> None:
    """Say which circuits of a curve have no edge: the input or the logits are cut off, and f is 0."""
    import logging

    for rank, row in body["rankings"].items():
        empty = [f"{share:.1%}" for share, size in zip(body["fractions"], row["edges"], strict=True) if not size]
        if empty:
            logging.getLogger(__name__).warning(
                "%s ranking: the best %s of the edges lead nowhere from the input: these circuits are empty",
                rank,
                ", ".join(empty),
            )


def curves(
    stream: "Stream", prepared: "list[Prepared]", arguments: argparse.Namespace, both: "Ends", scores: "torch.Tensor"
) -> Json:
    """Both rankings over MIB's fractions."""
    from dataclasses import asdict

    from excise.circuits.choose import RANKS
    from excise.circuits.faithfulness import FRACTIONS, curve
    from excise.circuits.judge import along

    rankings, values = {}, {}
    for rank in RANKS:
        rows, sizes = along(stream, prepared, arguments.objective, scores, rank, FRACTIONS, both)
        found = curve(FRACTIONS, rows, both.full, both.empty, seed=arguments.seed)
        rankings[rank] = {"edges": sizes, "mean": rows.mean(1).tolist(), **asdict(found)}
        values[rank] = rows.tolist()
    return {"fractions": list(FRACTIONS), "rankings": rankings, "values": values}


def single(
    stream: "Stream", prepared: "list[Prepared]", arguments: argparse.Namespace, both: "Ends", circuit: Json
) -> Json:
    """One circuit and its complement."""
    import numpy as np
    import torch

    from excise.circuits.faithfulness import RESAMPLES, faithfulness, interval
    from excise.circuits.judge import values_of
    from excise.errors import ExciseError

    graph = stream.graph
    kept = torch.zeros_like(graph.edges)
    for row in circuit["edges"]:
        kept[graph.edge(row["edge"])] = True
    if not kept.any() or torch.equal(kept, graph.edges):
        raise ExciseError(f"{arguments.circuit}: a circuit of none or of all edges: there is nothing to judge")
    draws = np.random.default_rng(arguments.seed).integers(both.full.size, size=(RESAMPLES, both.full.size))
    found: Json = {"values": {}}
    parts = {"circuit": kept, "complement": graph.edges & ~kept}
    for name, edges in parts.items():
        values = values_of(stream, prepared, arguments.objective, edges)
        resampled = faithfulness(values[draws], both.full[draws], both.empty[draws])
        found[name] = {
            "edges": int(edges.sum()),
            "mean": float(values.mean()),
            "faithfulness": float(faithfulness(values, both.full, both.empty)),
            "interval": interval(resampled),
        }
        found["values"][name] = values.tolist()
    return {"faithfulness": found["circuit"]["faithfulness"], **found}
