"""Embed documents and queries with an encoder, dense or cut.

The embeddings are an artefact: retrieve ranks by them, distil learns from those of the dense model.
"""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this stage."""
    from excise.stages.options import add_model_arguments

    add_model_arguments(parser, model="folder of an encoder, dense or cut", spread=False)
    parser.add_argument("--documents", type=Path, help="documents, JSONL with id and text")
    parser.add_argument("--queries", type=Path, help="queries, JSONL with id and text")
    parser.add_argument("--query-prefix", help="what comes before a query (default: as the model's files say)")
    parser.add_argument("--document-prefix", help="what comes before a document (default: as the model's files say)")
    parser.add_argument("--output", type=Path, required=True, help="embeddings, safetensors")


def run(arguments: argparse.Namespace) -> None:
    """Load, embed, write."""
    import logging
    import time

    from excise.artefacts import write_tensors
    from excise.errors import ExciseError
    from excise.models.encoder import load_encoder
    from excise.models.loading import device_type
    from excise.models.pooling import with_prefixes
    from excise.provenance import provenance
    from excise.retrieval.texts import embed_files
    from excise.stages.options import set_threads

    files = {"documents": arguments.documents, "queries": arguments.queries}
    files = {name: path for name, path in files.items() if path is not None}
    if not files:
        raise ExciseError("give --documents or --queries, or both")
    set_threads(arguments.threads)
    encoder = load_encoder(arguments.model, dtype=arguments.dtype, device=arguments.device)
    encoder.pooling = with_prefixes(encoder.pooling, arguments.query_prefix, arguments.document_prefix)
    start = time.process_time()
    settings, counts, vectors = embed_files(encoder, files)
    meta = provenance(
        "embed",
        settings,
        packages=("torch", "transformers", "tokenizers"),
        model=encoder.info,
        device=device_type(arguments.device),
        counts=counts,
    )
    write_tensors(arguments.output, meta, vectors)
    logging.getLogger(__name__).info("%s, %.1f s of processor time", counts, time.process_time() - start)
