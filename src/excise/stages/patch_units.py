"""Measure what heads and neurons of an encoder do to the embeddings, and how well cheap scores rank them.

Each unit is held at its mean, one after the other; its effect is the mean of 1 - cosine. Give texts that no score saw.
Every head is measured, and as many neurons as --neurons says, drawn at random.
"""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this stage."""
    from excise.stages.options import add_model_arguments

    add_model_arguments(parser, model="folder of a dense encoder", spread=False)
    parser.add_argument("--texts", type=Path, action="append", help="documents, JSONL; may be repeated")
    parser.add_argument("--queries", type=Path, action="append", help="queries, JSONL; may be repeated")
    parser.add_argument("--limit", type=int, default=40, help="take the first so many of each kind (default 40)")
    parser.add_argument("--neurons", type=int, default=0, help="measure so many neurons as well (default 0)")
    parser.add_argument("--seed", type=int, default=0, help="draws the neurons (default 0)")
    parser.add_argument("--scores", type=Path, action="append", default=[], help="scores (excise importance)")
    parser.add_argument("--output", type=Path, required=True, help="effects and rank correlations, JSON")


def run(arguments: argparse.Namespace) -> None:
    """Load, measure, correlate, write."""
    import logging

    from scipy.stats import spearmanr

    from excise.artefacts import read_tensors, sha256_file, write_json
    from excise.errors import ExciseError
    from excise.models.encoder import load_encoder, refuse_cut
    from excise.models.loading import device_type
    from excise.provenance import provenance
    from excise.retrieval.patching import drawn_units, unit_effects
    from excise.retrieval.texts import read_calibration, texts_info
    from excise.stages.options import set_threads

    if arguments.limit < 1:
        raise ExciseError(f"--limit {arguments.limit}: at least 1")
    paths = {"document": arguments.texts or [], "query": arguments.queries or []}
    texts = read_calibration(paths)
    texts = [pair for kind in paths for pair in [one for one in texts if one[0] == kind][: arguments.limit]]
    set_threads(arguments.threads)
    encoder = load_encoder(arguments.model, dtype=arguments.dtype, device=arguments.device)
    refuse_cut(encoder, arguments.model)
    read = [(path, *read_tensors(path)) for path in arguments.scores]
    for path, meta, scores in read:
        if meta.get("stage") != "importance" or meta["model"]["fingerprint"] != encoder.info["fingerprint"]:
            raise ExciseError(f"{path}: no scores of this model's units ({', '.join(scores)})")
    units, correlations = {}, []
    for kind, chosen in drawn_units(encoder, neurons=arguments.neurons, seed=arguments.seed).items():
        effects = unit_effects(encoder, texts, kind, chosen).tolist()
        units[kind] = [
            {"layer": layer, "unit": unit, "effect": effect}
            for (layer, unit), effect in zip(chosen, effects, strict=True)
        ]
        for _, meta, scores in read:
            ranked = [float(scores[kind][place]) for place in chosen]
            found = float(spearmanr(effects, ranked)[0])
            correlations.append({"method": meta["settings"]["method"], "units": kind, "spearman": found})
    settings = {name: getattr(arguments, name) for name in ("limit", "neurons", "seed")} | {
        "scores": [sha256_file(path) for path in arguments.scores]
    }
    meta = provenance(
        "patch-units",
        settings | texts_info(paths, texts),
        packages=("torch", "transformers", "scipy"),
        model=encoder.info,
        device=device_type(arguments.device),
    )
    write_json(arguments.output, meta, {"units": units, "rank_correlations": correlations})
    for row in correlations:
        logging.getLogger(__name__).info(
            "%(method)s: rank correlation with the effect of %(units)s %(spearman).3f", row
        )
