"""Measure what each head of an encoder does to the embeddings, and how well cheap scores rank the heads.

Each head is held at its mean, one after the other; its effect is the mean of 1 - cosine. Give texts that no score saw.
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
    from excise.retrieval.patching import head_effects
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
            raise ExciseError(f"{path}: no scores of this model's heads ({', '.join(scores)})")
    effects = head_effects(encoder, texts)
    rows = [
        {
            "method": meta["settings"]["method"],
            "spearman": float(spearmanr(effects.flatten(), scores["heads"].flatten())[0]),
        }
        for _, meta, scores in read
    ]
    settings = {"limit": arguments.limit, "scores": [sha256_file(path) for path in arguments.scores]}
    meta = provenance(
        "patch-heads",
        settings | texts_info(paths, texts),
        packages=("torch", "transformers", "scipy"),
        model=encoder.info,
        device=device_type(arguments.device),
    )
    write_json(arguments.output, meta, {"effects": effects.tolist(), "rank_correlations": rows})
    for row in rows:
        logging.getLogger(__name__).info("%(method)s: rank correlation with the measured effect %(spearman).3f", row)
