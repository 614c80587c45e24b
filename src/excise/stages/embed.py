"""Embed documents and queries with an encoder, dense or cut.

The embeddings are an artefact: retrieve ranks by them, distil learns from those of the dense model.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from excise.artefacts import Json
    from excise.tasks.measurement import Measurement


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this stage."""
    from excise.stages.options import add_model_arguments

    add_model_arguments(parser, model="folder of an encoder, dense or cut", spread=False)
    parser.add_argument("--documents", type=Path, help="documents, JSONL with id and text")
    parser.add_argument("--queries", type=Path, help="queries, JSONL with id and text")
    parser.add_argument(
        "--sentences", type=Path, help="sentences of pairs, JSONL with id and text; read as queries are"
    )
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

    files = {name: getattr(arguments, name) for name in ("documents", "queries", "sentences")}
    files = {name: path for name, path in files.items() if path is not None}
    if not files:
        raise ExciseError("give --documents, --queries or --sentences")
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


def given(arguments: argparse.Namespace, files: "dict[str, str]") -> "tuple[Json, dict[str, Tensor]]":
    """Provenance and embeddings of the texts that a stage judges: read (``--vectors``), or made here (``--model``).

    Args:
        arguments: those of ``add_model_arguments``, ``vectors``, and the files by their names.
        files: SHA-256 of each file by its name.

    Raises:
        ExciseError: neither an encoder nor embeddings were given, or both; or embeddings of other files.
    """
    from excise.errors import ExciseError
    from excise.models.encoder import load_encoder
    from excise.models.loading import device_type
    from excise.retrieval.texts import embed_files, read_embeddings
    from excise.stages.options import set_threads

    if (arguments.model is None) == (arguments.vectors is None):
        raise ExciseError("give --model or --vectors (one of them)")
    if arguments.vectors is not None:
        return read_embeddings(arguments.vectors, files)
    set_threads(arguments.threads)
    encoder = load_encoder(arguments.model, dtype=arguments.dtype, device=arguments.device)
    settings, counts, vectors = embed_files(encoder, {name: getattr(arguments, name) for name in files})
    meta = {"model": encoder.info, "device": device_type(arguments.device), "settings": settings, "counts": counts}
    return meta, vectors


def write_judged(
    arguments: argparse.Namespace,
    stage: str,
    settings: "dict[str, str]",
    meta: "Json",
    measurements: "Sequence[Measurement]",
    packages: tuple[str, ...],
) -> None:
    """Write what an encoder did on a collection, and say it.

    Args:
        arguments: with ``variant``, ``name`` and ``output``.
        stage: that measured.
        settings: SHA-256 of each file that was read, by its name.
        meta: of ``given``.
        measurements: of this encoder.
        packages: whose versions are recorded.
    """
    import logging

    from excise.provenance import provenance
    from excise.tasks.files import write_measurements
    from excise.tasks.measurement import Measured
    from excise.tasks.retrieval import about_of

    written = provenance(
        stage,
        settings | {"variant": arguments.variant, "name": arguments.name},
        packages=packages,
        model=meta["model"],
        device=meta["device"],
        embeddings=meta["settings"] | {"counts": meta["counts"]},
    )
    about = about_of(meta["model"])
    write_measurements(
        arguments.output, Measured(variant=arguments.variant, measurements=measurements, about=about, meta=written)
    )
    for one in measurements:
        said = ", ".join(f"{name} {metric.figure:.4f}" for name, metric in one.metrics.items())
        logging.getLogger(f"excise.stages.{stage}").info("%s: %s: %s", arguments.variant, one.label, said)
