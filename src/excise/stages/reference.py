"""Make a reference set: the samples whose relevance is computed.

--kind generations: the model's own answers, picked by score. --kind windows: windows of a text. --kind file: a
ready-made file of records with prompt and continuation.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from excise.artefacts import Json

KINDS = {
    "generations": ("generations", "scores"),
    "windows": ("text", "model"),
    "file": ("source", "model"),
}
"""What each kind needs."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this stage."""
    from excise.config.options import add_options
    from excise.config.references import Picked, Windows

    parser.add_argument("--kind", required=True, choices=list(KINDS), help="where the samples come from")
    parser.add_argument("--generations", type=Path, help="generations: generations, JSONL")
    parser.add_argument("--scores", type=Path, help="generations: their scores, JSONL")
    add_options(parser, Picked, only=["at_least", "below", "span", "permuted"])
    parser.add_argument("--text", type=Path, help="windows: text, JSONL")
    add_options(parser, Windows, only=["windows", "seqlen"])
    parser.add_argument(
        "--source", type=lambda path: Path(path).expanduser(), help="file: records with prompt and continuation"
    )
    parser.add_argument("--model", type=Path, help="windows, file: model folder, for its tokenizer")
    parser.add_argument("--count", type=size, default=93, help="generations, file: most samples, or all (default 93)")
    parser.add_argument("--minimum", type=int, help="generations, file: fewer than this is an error (default: --count)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the drawing (default 0)")
    parser.add_argument("--output", type=Path, required=True, help="reference set, JSONL")


def size(text: str) -> int | None:
    """A number of samples; None for ``all``."""
    return None if text == "all" else int(text)


def run(arguments: argparse.Namespace) -> None:
    """Read, choose, write."""
    import functools
    import logging

    from excise.artefacts import sha256_file, write_jsonl
    from excise.data import references
    from excise.data.texts import read_texts, records
    from excise.errors import ExciseError
    from excise.models.encoding import load_encoder
    from excise.models.loading import identity, load_config, max_positions
    from excise.provenance import provenance

    missing = [name for name in KINDS[arguments.kind] if getattr(arguments, name) is None]
    if missing:
        raise ExciseError(f"--kind {arguments.kind} needs {' and '.join('--' + name for name in missing)}")
    inputs = {name: getattr(arguments, name) for name in KINDS[arguments.kind] if name != "model"}
    for name, path in inputs.items():
        if not path.is_file():
            raise ExciseError(f"--{name} {path}: no such file")
    settings = {"kind": arguments.kind, "seed": arguments.seed}
    settings |= {name: sha256_file(path) for name, path in inputs.items()}
    samples = {"count": arguments.count, "minimum": arguments.minimum, "seed": arguments.seed}
    packages: list[str] = []
    if arguments.kind == "generations":
        choice = {name: getattr(arguments, name) for name in ("at_least", "below", "span", "permuted")} | samples
        model, rows, counts = _picked(arguments, choice, settings["generations"])
    else:
        packages = ["tokenizers", "transformers"]
        limit = max_positions(load_config(arguments.model))
        if arguments.kind == "windows" and limit is not None and arguments.seqlen > limit:
            raise ExciseError(f"--seqlen {arguments.seqlen}: this model has positions for {limit} tokens")
        encoder = load_encoder(arguments.model)
        model = identity(arguments.model, "any")
        if arguments.kind == "windows":
            meta, documents = read_texts(arguments.text)
            choice = {"windows": arguments.windows, "seqlen": arguments.seqlen, "seed": arguments.seed}
            rows, counts = references.window_rows(documents, encoder.text, **choice)
            if (begin := encoder.window_first) is not None:  # in place of the token there: the family needs it
                rows = [row | {"input_ids": [begin, *row["input_ids"][1:]]} for row in rows]
                choice = choice | {"begin_with": begin}
            counts["text"] = meta.get("label")
        else:
            choice = samples
            rows, counts = references.file_rows(
                records(arguments.source), encoder.prompt, functools.partial(encoder.prompt, first=False), **choice
            )
    counts["samples"] = len(rows)
    counts["tokens"] = sum(len(row["input_ids"]) for row in rows)
    write_jsonl(
        arguments.output,
        provenance("reference", settings | choice, packages=packages, model=model, reference=counts),
        rows,
    )
    logging.getLogger(__name__).info("%d samples, %d tokens", counts["samples"], counts["tokens"])


def _picked(
    arguments: argparse.Namespace, choice: "Json", generations_sha256: str
) -> "tuple[Json | None, list[Json], Json]":
    """The model's own answers, picked by score: the model, the rows, and counts of what was found."""
    from excise.artefacts import read_jsonl
    from excise.data.references import generation_rows
    from excise.errors import ExciseError

    required = ("id", "draw", "prompt_ids", "completion", "completion_ids")
    meta, generations = read_jsonl(arguments.generations, required=required)
    scores_meta, scores = read_jsonl(arguments.scores, required=("id", "draw", "score"))
    made_for = scores_meta.get("settings", {}).get("generations")
    if made_for is not None and made_for != generations_sha256:
        raise ExciseError(f"{arguments.scores}: made for another generation file than {arguments.generations}")
    try:
        rows, counts = generation_rows(generations, scores, **choice)
    except ExciseError as error:  # a run has several sets, each at its own threshold
        raise ExciseError(f"{arguments.output}: {error}") from error
    return meta.get("model"), rows, {**counts, "scorer": scores_meta.get("scorer")}
