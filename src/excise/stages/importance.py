"""Score the neurons and heads of an encoder: how much would its embeddings change without them?

Methods: embedding, fisher and lrp (one backward pass, no labels), wanda, magnitude, random.
"""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this stage."""
    from excise.stages.options import add_model_arguments

    add_model_arguments(parser, model="folder of a dense encoder", spread=False)
    parser.add_argument(
        "--method", default="embedding", help="embedding, fisher, lrp, wanda, magnitude, random (default embedding)"
    )
    parser.add_argument("--texts", type=Path, action="append", help="calibration documents, JSONL; may be repeated")
    parser.add_argument("--queries", type=Path, action="append", help="calibration queries, JSONL; may be repeated")
    parser.add_argument("--seed", type=int, default=0, help="seed of random projections and numbers (default 0)")
    parser.add_argument("--output", type=Path, required=True, help="scores, safetensors: neurons and heads")


def run(arguments: argparse.Namespace) -> None:
    """Load, score, write."""
    import logging
    import time

    from excise.artefacts import write_tensors
    from excise.errors import unknown
    from excise.models.encoder import load_encoder, refuse_cut
    from excise.models.loading import device_type
    from excise.provenance import provenance
    from excise.retrieval import importance
    from excise.retrieval.texts import read_calibration, texts_info
    from excise.stages.options import set_threads

    if arguments.method not in importance.METHODS:
        raise unknown("method", arguments.method, importance.METHODS)
    paths = {"document": arguments.texts or [], "query": arguments.queries or []}
    texts = read_calibration(paths) if arguments.method in importance.NEED_TEXTS else []
    set_threads(arguments.threads)
    encoder = load_encoder(arguments.model, dtype=arguments.dtype, device=arguments.device)
    refuse_cut(encoder, arguments.model)
    start = time.process_time()
    scores = importance.METHODS[arguments.method](encoder, texts, arguments.seed)
    settings = {"method": arguments.method, "seed": arguments.seed, **texts_info(paths, texts)}
    meta = provenance(
        "importance",
        settings,
        packages=("torch", "transformers", "tokenizers", *(["lxt"] if arguments.method == "lrp" else [])),
        model=encoder.info,
        device=device_type(arguments.device),
    )
    write_tensors(arguments.output, meta, scores)
    logging.getLogger(__name__).info(
        "%s: %d texts, %.1f s of processor time", arguments.method, len(texts), time.process_time() - start
    )
