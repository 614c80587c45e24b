"""Calibration texts: documents and queries that importance, repair and distillation may see."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from excise.artefacts import Json, sha256_file
from excise.data.collections import read_documents
from excise.errors import ExciseError


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
