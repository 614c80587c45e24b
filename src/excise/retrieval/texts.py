"""Calibration texts, which importance, repair and distillation may see, and embeddings of texts."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor

from excise.artefacts import Json, read_tensors, sha256_file
from excise.data.collections import read_documents
from excise.errors import ExciseError
from excise.models.encoder import Encoder, embed


def read_calibration(paths: Mapping[str, Sequence[Path]]) -> list[tuple[str, str]]:
    """All texts of some files, as (kind, text).

    Args:
        paths: files of rows ``{id, text}`` by kind, ``document`` or ``query``.

    Raises:
        ExciseError: there is no text, or nothing but empty ones.
    """
    texts = [
        (kind, row["text"])
        for kind, files in paths.items()
        for path in files
        for row in read_documents(path)[1]
        if row["text"].strip()
    ]
    if not texts:
        raise ExciseError("--texts, --queries: no calibration text was given, or only empty ones")
    return texts


def texts_info(paths: Mapping[str, Sequence[Path]], texts: Sequence[tuple[str, str]]) -> Json:
    """What provenance says of calibration texts."""
    return {
        "texts": [sha256_file(path) for path in paths["document"]] if texts else [],
        "queries": [sha256_file(path) for path in paths["query"]] if texts else [],
        "number_of_texts": len(texts),
    }


def read_embeddings(path: Path, files: Mapping[str, str]) -> tuple[Json, dict[str, Tensor]]:
    """Provenance and embeddings of a file of ``excise embed``.

    Args:
        path: the file.
        files: SHA-256 of the files that the embeddings must be of: ``documents``, ``queries``, ``sentences``.

    Raises:
        ExciseError: it was made by another stage, or of other files.
    """
    meta, vectors = read_tensors(path)
    if meta.get("stage") != "embed":
        raise ExciseError(f"{path}: written by excise {meta.get('stage')}, not by embed")
    for name, sha256 in files.items():
        if meta["settings"].get(name) != sha256:
            raise ExciseError(f"{path}: embeddings of other {name} than those given; embed these")
    return meta, vectors


def embed_files(encoder: Encoder, files: Mapping[str, Path]) -> tuple[Json, Json, dict[str, Tensor]]:
    """Embed the texts of some files.

    Args:
        encoder: dense or cut.
        files: JSONL of rows ``{id, text}``: ``documents``, ``queries``, ``sentences`` (of pairs, read as queries are).

    Returns:
        Settings, counts of texts, tokens and texts that were cut, and the embeddings by the names of ``files``.
    """
    kinds = {"documents": "document", "queries": "query", "sentences": "query"}
    rows = {name: read_documents(path)[1] for name, path in files.items()}
    found = {name: embed(encoder, [row["text"] for row in rows[name]], kinds[name]) for name in files}
    counts = {name: {"texts": len(rows[name]), "tokens": e.tokens, "cut": e.shortened} for name, e in found.items()}
    settings = {
        **{name: sha256_file(path) for name, path in files.items()},
        "prefixes": encoder.pooling.prefixes,
        "max_length": encoder.max_length,
    }
    return settings, counts, {name: e.vectors for name, e in found.items()}
