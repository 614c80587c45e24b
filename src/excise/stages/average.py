"""Turn the statistics of one reference set under several seeds into one score per unit.

The score is that of the mean over all samples of all seeds; the standard error is that of this mean, where the
statistics hold sums of squares; by_seed holds the score of each seed alone.
"""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this stage."""
    parser.add_argument("--statistics", type=Path, nargs="+", required=True, help="merged statistics, one a seed")
    parser.add_argument("--pool", help="name for several corpora added up as one (default: only one may be given)")
    parser.add_argument("--model", type=Path, required=True, help="model folder (its weights enter some scores)")
    parser.add_argument("--output", type=Path, required=True, help="scores, safetensors")


def run(arguments: argparse.Namespace) -> None:
    """Read, pool, score, write."""
    import functools

    from excise.artefacts import Array, sha256_file, write_arrays
    from excise.attribution.registry import measured
    from excise.attribution.scores import unit_scores
    from excise.edits.unit_list import check_fits
    from excise.errors import ExciseError
    from excise.models.loading import identity, load_config
    from excise.models.units import axis
    from excise.provenance import provenance
    from excise.statistics import Statistics, add, refuse_difference

    read = [(Statistics.read(path), path) for path in arguments.statistics]
    read.sort(key=lambda pair: (pair[0].meta["corpus"]["seed"], pair[0].meta["corpus"]["id"]))
    first, first_path = read[0]
    for other, path in read[1:]:
        try:
            refuse_difference(first.meta, other.meta, ignored=(*VARYING, "corpus.id") if arguments.pool else VARYING)
        except ExciseError as error:
            raise ExciseError(f"{first_path} and {path}: {error}") from error
    given = [(statistics.meta["corpus"]["seed"], statistics.meta["corpus"]["id"]) for statistics, _ in read]
    if len(set(given)) < len(given):
        listed = ", ".join(f"{corpus} {seed}" for seed, corpus in given)
        raise ExciseError(f"--statistics: a seed is given twice ({listed}); it would count double")
    seeds = sorted({seed for seed, _ in given})
    model = identity(arguments.model, first.meta["model"]["dtype"])
    check_fits({"meta": first.meta}, model["fingerprint"], where=str(first_path))
    by_seed: dict[int, list[dict[str, Array]]] = {seed: [] for seed in seeds}
    for statistics, path in read:
        try:
            by_seed[statistics.meta["corpus"]["seed"]].append(statistics.totals())
        except ExciseError as error:
            raise ExciseError(f"{path}: {error}") from error
    totals = [functools.reduce(add, parts) for parts in by_seed.values()]
    method = measured(first.meta["method"])
    units = axis(load_config(arguments.model), first.meta["settings"]["unit"])
    arrays = unit_scores(method, totals, arguments.model, units)
    meta = provenance(
        "average",
        first.meta["settings"],
        packages=("numpy", "torch"),
        modules=(method.module,),
        method=method.name,
        model=first.meta["model"],
        corpus={"id": arguments.pool or first.meta["corpus"]["id"], "seeds": seeds},
        counts={name: sum(int(total[name]) for total in totals) for name in ("samples", "tokens")},
        inputs=[sha256_file(path) for _, path in read],
        attribution={"code": first.meta["code"], "versions": first.meta["versions"]},
    )
    write_arrays(arguments.output, meta, arrays)


VARYING = ("corpus.seed", "corpus.sha256", "corpus.samples", "sample_ids")
"""Entries of the provenance that may differ between the seeds of one corpus."""
