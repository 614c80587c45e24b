"""Remove edges one after the other as long as the model still does the task (ACDC): the circuit that is left.

The search begins with the edges that a cheap score puts first. Judge what is left with excise faithfulness --circuit.
"""

import argparse
from pathlib import Path

from excise.stages.circuit_options import PACKAGES, add_pair_arguments, graph_meta, opened


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this stage."""
    from excise.config.circuit_options import EdgeRemoval
    from excise.config.options import add_options

    add_pair_arguments(parser, objective=False)
    parser.add_argument("--edges", type=Path, required=True, help="scores of edges, safetensors, of excise edges")
    add_options(parser, EdgeRemoval)
    parser.add_argument("--output", type=Path, required=True, help="circuit, JSON")


def run(arguments: argparse.Namespace) -> None:
    """Read, remove, write."""
    import logging

    from excise.artefacts import write_json
    from excise.circuits.acdc_edges import remove_edges
    from excise.circuits.choose import edge_count, top
    from excise.circuits.scores import described, read_scores, refuse_other_model
    from excise.provenance import provenance

    scores = read_scores(arguments.edges)
    count = edge_count(arguments.candidates, scores.graph)
    found = opened(arguments)
    refuse_other_model(scores.meta, found.meta)
    removal = remove_edges(
        found.stream,
        found.prepared(),
        top(scores.edges, scores.graph, count, "absolute"),
        objective=arguments.objective,
        threshold=arguments.threshold,
        together=arguments.together,
    )
    body = {
        "asked": count,
        "objective": {
            "model": removal.full,
            "candidates": removal.candidates,
            "circuit": removal.final,
            "no edge": removal.empty,
        },
        "tried": removal.tried,
        "runs": removal.runs,
        **described(scores, removal.kept),
    }
    choice = {name: getattr(arguments, name) for name in ("candidates", "threshold")}
    meta = provenance(
        "remove-edges",
        {**found.settings, **choice},
        packages=PACKAGES,
        method="acdc",
        graph=graph_meta(found.stream),
        scores=scores.meta["settings"] | {"method": scores.meta["method"]},
        **found.meta,
    )
    write_json(arguments.output, meta, body)
    logging.getLogger(__name__).info(
        "%d of %d candidates are left; %s %.4f, from %.4f of the candidates",
        body["sizes"]["edges"],
        count,
        arguments.objective,
        removal.final,
        removal.candidates,
    )
