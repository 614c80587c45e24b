"""Score generations for the behaviour.

One scorer and one output file a run. The scorer sees the continuation only. An empty one gets whatever the scorer gives
to the empty text, and is counted. A scorer that fails ends the run: no score is ever made up.

Batches are cut from the whole file, in its order. With --shard, every n-th batch is scored; excise score --merge puts
the shards together to the bytes of one run. A score may depend on the other texts of its batch (a classifier's does, in
its last bits), but on no other batch.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from excise.artefacts import Json
    from excise.evaluation.scorers import Scorer

from excise.stages.options import set_threads


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this stage."""
    from excise.config.inputs import ScorerOptions
    from excise.config.options import add_options

    parser.add_argument(
        "--scorer",
        help="alt-profanity-check, better-profanity, detoxify-original, detoxify-unbiased, detoxify-multilingual, "
        "repetition, hf:ID_OR_FOLDER (a sequence classifier) or python:MODULE:FUNCTION (from texts to numbers)",
    )
    add_options(parser, ScorerOptions)
    parser.add_argument("--generations", type=Path, help="generations, JSONL")
    parser.add_argument(
        "--onset-at",
        type=float,
        help="also find, in each answer scored at or above this, the token that first brings it there (default: no)",
    )
    parser.add_argument("--model", type=Path, help="with --onset-at: model folder, for its tokenizer")
    parser.add_argument("--batch-size", type=int, default=64, help="texts scored together (default 64)")
    parser.add_argument("--shard", default="0/1", metavar="I/N", help="do batches I, I+N, ... only (default 0/1: all)")
    parser.add_argument("--merge", type=Path, nargs="+", metavar="SHARD", help="merge all shards instead of scoring")
    parser.add_argument("--device", default="cpu", help="where a neural scorer runs (default cpu)")
    parser.add_argument("--threads", type=int, help="CPU threads of torch (default: torch's own choice)")
    parser.add_argument("--output", type=Path, required=True, help="scores, JSONL")


def run(arguments: argparse.Namespace) -> None:
    """Score, or merge shards."""
    from excise.artefacts import write_jsonl
    from excise.errors import ExciseError

    if arguments.merge is None and None in (arguments.scorer, arguments.generations):
        raise ExciseError("--scorer and --generations are needed to score")
    meta, scored = _merged(arguments.merge) if arguments.merge else _score(arguments)
    write_jsonl(arguments.output, meta, scored)


def _score(arguments: argparse.Namespace) -> "tuple[Json, list[Json]]":
    from excise.artefacts import read_jsonl, sha256_file
    from excise.errors import ExciseError
    from excise.evaluation import scorers
    from excise.progress import Progress
    from excise.provenance import provenance
    from excise.shards import parse_shard

    module, column = scorers.module(arguments.scorer), scorers.column(arguments.scorer)
    size = arguments.batch_size
    if size < 1:
        raise ExciseError(f"--batch-size {size}: must be at least 1")
    if (arguments.onset_at is None) != (arguments.model is None):
        raise ExciseError("--onset-at and --model belong together: the tokens of an answer are decoded one by one")
    shard, shards = parse_shard(arguments.shard)
    tokens = () if arguments.onset_at is None else ("completion_ids",)
    generated, rows = read_jsonl(
        arguments.generations,
        ("id", "draw", "completion", column, *tokens),
        keep=lambda index: index // size % shards == shard,
    )
    if not rows and shard == 0:  # another shard may be left without a batch
        raise ExciseError(f"{arguments.generations}: no generations in it")
    settings = {
        "batch_size": size,
        "generations": sha256_file(arguments.generations),
        "onset_at": arguments.onset_at,
    }
    if not arguments.scorer.startswith(("alt", "better", "python", "repetition")):
        settings["threads"] = set_threads(arguments.threads)
    checkpoint = Path(arguments.checkpoint) if arguments.checkpoint else None
    told = {"label": arguments.label, "probability": arguments.probability, "device": arguments.device}
    options = scorers.Options(checkpoint=checkpoint, **told)
    scorer = scorers.load(arguments.scorer, options)
    scores: list[float] = []
    with Progress(len(rows), "texts", f"score with {scorer.name}") as progress:
        for start in range(0, len(rows), size):
            texts = [row[column] for row in rows[start : start + size]]
            scores += scorers.score(scorer, texts)
            progress.advance(len(texts))
    scored = [{"id": row["id"], "draw": row["draw"], "score": value} for row, value in zip(rows, scores, strict=True)]
    if arguments.onset_at is not None:
        _find_onsets(rows, scored, scorer, column, arguments.model, arguments.onset_at)
    meta = provenance(
        "score",
        settings,
        modules=[module],
        model=generated.get("model"),
        selection=generated.get("selection"),
        scorer=scorer.facts,
        empty=sum(not row["completion"].strip() for row in rows),
    )
    if shards > 1:
        meta["shard"] = [shard, shards]
    return meta, scored


def _find_onsets(
    rows: "list[Json]", scored: "list[Json]", scorer: "Scorer", column: str, model: Path, threshold: float
) -> None:
    """Add to each row that is scored at or above the threshold the token that first brings it there."""
    from excise.evaluation.onset import onset
    from excise.models.loading import load_tokenizer
    from excise.progress import Progress

    tokenizer = load_tokenizer(model)

    def seen(ids: list[int]) -> str | list[int]:  # what the scorer sees of an answer's first tokens
        return ids if column == "completion_ids" else str(tokenizer.decode(ids, skip_special_tokens=True))

    shown = [(row, into) for row, into in zip(rows, scored, strict=True) if into["score"] >= threshold]
    with Progress(len(shown), "answers", "find the onset") as progress:
        for row, into in shown:
            into["onset"] = onset(scorer, seen, row["completion_ids"], threshold)
            progress.advance(1)


def _merged(paths: list[Path]) -> "tuple[Json, list[Json]]":
    """Provenance of an unsharded run, and its rows: one batch of each shard in turn."""
    from excise.shards import read_shards

    meta, parts = read_shards("score", paths, counts=("empty",))
    size = meta["settings"]["batch_size"]
    starts = range(0, len(parts[0]), size)  # no shard has more batches than the first
    return meta, [row for start in starts for part in parts for row in part[start : start + size]]
