"""Find the scales of N units that lower the target most within a budget of perplexity (method trust-region).

Reads the scores of both reference sets, and writes the unit list: one scale per row, what the step is predicted to cost
and to gain, and how much the units overlap that the seeds alone would move.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from excise.artefacts import Array, Json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this stage."""
    parser.add_argument("--retain", type=Path, required=True, help="scores on general text, method trust-region")
    parser.add_argument("--target", type=Path, required=True, help="scores on samples of the behaviour, likewise")
    parser.add_argument("--count", type=int, required=True, help="how many units move, over all layers")
    parser.add_argument(
        "--budget", type=float, default=0.03, help="rise of perplexity to spend, as a share (default 0.03 = 3 %%)"
    )
    for name, default in (("lowest", -1.0), ("highest", 2.0)):
        parser.add_argument(
            f"--{name}", type=float, default=default, help=f"{name} scale of a unit (default {default:g})"
        )
    parser.add_argument(
        "--control", action="store_true", help="the target's samples show nothing (reference --permuted): it cannot win"
    )
    parser.add_argument("--name", help="what to call the unit list in tables (default: the method)")
    parser.add_argument("--output", type=Path, required=True, help="unit list, JSON")


def run(arguments: argparse.Namespace) -> None:
    """Read, find the step, write the unit list."""
    import numpy as np

    from excise.artefacts import sha256_file, write_json
    from excise.attribution import trust_region
    from excise.edits.treatment import Treatment
    from excise.provenance import provenance

    (retain_meta, retain), (target_meta, target) = read_scores(arguments.retain, arguments.target)
    rows, metric = trust_region.fisher(retain)
    bounds = arguments.lowest, arguments.highest

    def found(benefit: "Array") -> trust_region.Step:
        return trust_region.step(benefit, rows, metric, count=arguments.count, budget=arguments.budget, bounds=bounds)

    step, unit, shape = found(target["score"]), retain_meta["settings"]["unit"], target["score"].shape
    settings = {
        "retain": sha256_file(arguments.retain),
        "target": sha256_file(arguments.target),
        "count": arguments.count,
        "budget": arguments.budget,
        "bounds": list(bounds),
    }
    references = {
        name: {**meta["corpus"], **meta["counts"]} for name, meta in (("target", target_meta), ("retain", retain_meta))
    }
    efficiency = target["score"] / np.sqrt(metric)
    columns = {"score": -efficiency.ravel()[step.units], "scale": step.scales}
    places = [divmod(index, shape[1]) for index in step.units.tolist()]
    write_json(
        arguments.output,
        provenance(
            "step",
            settings,
            packages=("numpy",),
            method="trust-region",
            model=retain_meta["model"],
            attribution=retain_meta["settings"],
            references=references,
        ),
        {
            "name": arguments.name or "trust-region",
            "method": "trust-region",
            "control": arguments.control,
            "unit": unit,
            "ablation": "zero",
            "scale": None,
            "layers": shape[0],
            "units_per_layer": shape[1],
            "stability": stability(step, [found(benefit) for benefit in target["by_seed"]]),
            "predicted": {"log_perplexity": step.cost, "log_probability": -step.gain},
            "rows": Treatment("zero", None).rows(unit, places, {k: v.tolist() for k, v in columns.items()}),
        },
    )


def read_scores(retain: Path, target: Path) -> "list[tuple[Json, dict[str, Array]]]":
    """Provenance and scores of the two reference sets.

    Raises:
        ExciseError: they are not scores of this method, or not of one model and one unit.
    """
    from excise.artefacts import read_arrays
    from excise.errors import ExciseError
    from excise.statistics import refuse_difference

    read = []
    for path in (retain, target):
        meta, arrays = read_arrays(path)
        if (meta.get("stage"), meta.get("method")) != ("average", "trust-region"):
            raise ExciseError(f"{path}: not scores (excise average) of method trust-region")
        read.append((meta, arrays))
    try:
        refuse_difference(read[0][0], read[1][0], ignored=VARYING)
    except ExciseError as error:
        raise ExciseError(f"{retain} and {target}: {error}") from error
    return read


def stability(step: Any, by_seed: list[Any]) -> dict[str, object]:
    """How much the units overlap that the target samples of the seeds alone would move; empty for one seed."""
    from excise.selection import jaccard, pairwise_jaccard

    if len(by_seed) < 2:
        return {}
    sets = [set(one.units.tolist()) for one in by_seed]
    return {
        "seeds": len(sets),
        "jaccard_between_seeds": pairwise_jaccard(sets),
        "jaccard_with_mean": [jaccard(one, set(step.units.tolist())) for one in sets],
    }


VARYING = ("corpus.id", "corpus.seeds", "counts.samples", "counts.tokens", "inputs")
"""Entries of the provenance that may differ between the two reference sets."""
