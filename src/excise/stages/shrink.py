"""Make an encoder smaller: remove the least important neurons and heads, or whole layers, and save what is left.

What is removed is really cut out of the matrices. The folder is read back, and its embeddings compared, before it gets
its name.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from excise.artefacts import Json
    from excise.models.encoder import Encoder
    from excise.models.structure import Structure
    from excise.tasks.measurement import About


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this stage."""
    parser.add_argument("--model", type=Path, required=True, help="folder of a dense encoder")
    parser.add_argument(
        "--scores", type=Path, help="scores of neurons and heads (excise importance); not needed to drop layers alone"
    )
    parser.add_argument("--neurons", type=float, default=0.0, help="share of the neurons to remove (default 0)")
    parser.add_argument("--heads", type=float, default=0.0, help="share of the heads to remove (default 0)")
    parser.add_argument(
        "--time", type=float, help="instead of shares: the share of the dense encoder's time that documents may take"
    )
    parser.add_argument("--latency", type=Path, help="times of this machine (excise encoder-latency), with --time")
    parser.add_argument("--scope", default="global", help="global (default): layers compete; layer: equal shares")
    parser.add_argument("--keep-layers", help="layers that stay, e.g. 0,3,5, or their number (default: all)")
    parser.add_argument(
        "--repair",
        default="none",
        help="none; mean: what removed units wrote on average goes into biases; least-squares: the output projections "
        "are fitted again (default none)",
    )
    parser.add_argument("--texts", type=Path, action="append", help="calibration documents for the repair, JSONL")
    parser.add_argument("--queries", type=Path, action="append", help="calibration queries for the repair, JSONL")
    parser.add_argument("--name", help="its name in tables (default: the method)")
    parser.add_argument("--threads", type=int, help="CPU threads of torch (default: torch's own choice)")
    parser.add_argument("--output", type=Path, required=True, help="folder to make")


def run(arguments: argparse.Namespace) -> None:
    """Choose, repair, cut, save, read back."""
    import logging
    from dataclasses import asdict

    from excise.artefacts import sha256_file
    from excise.models.encoder import load_encoder, refuse_cut
    from excise.models.folders import refuse_foreign
    from excise.retrieval import selection
    from excise.retrieval.saving import card, described, is_plain, save, size_info
    from excise.retrieval.shrinking import shrink
    from excise.retrieval.texts import read_calibration, texts_info
    from excise.stages.options import set_threads

    _refuse_together(arguments)
    refuse_foreign(arguments.output)
    paths = {"document": arguments.texts or [], "query": arguments.queries or []}
    texts = read_calibration(paths) if arguments.repair != "none" else []
    set_threads(arguments.threads)
    dense = load_encoder(arguments.model)
    refuse_cut(dense, arguments.model)
    method, scores = _scores(arguments.scores, dense)
    total = len(scores["neurons"])
    if arguments.time is not None:
        structure = _within_time(arguments, dense, method, scores)
    else:
        structure = selection.structure(
            scores,
            neurons=arguments.neurons,
            heads=arguments.heads,
            scope=arguments.scope,
            layers=_layers(arguments.keep_layers, total),
        )
    small = shrink(dense, structure, repair=arguments.repair, texts=texts)
    info = size_info(small)
    settings = {
        "scores": sha256_file(arguments.scores) if arguments.scores else None,
        "method": method,
        "neurons": arguments.neurons,
        "heads": arguments.heads,
        "time": arguments.time,
        "latency": sha256_file(arguments.latency) if arguments.latency else None,
        "scope": arguments.scope,
        "layers": [row.layer for row in structure.layers],
        "repair": arguments.repair,
        **texts_info(paths, texts),
    }
    name = f"{dense.info['id']} shrunk"
    source = described("shrink", name, dense.info, settings, asdict(_about(arguments, method, structure, total)))
    what = f"{_gone(arguments, settings)}, chosen by `{method}`, repair `{arguments.repair}`"
    lines = card(name, dense.info, what, info, is_plain(structure))
    more = {"size": info, "kept": structure.as_json()}
    save(small, arguments.model, arguments.output, source=source | more, card=lines)
    logging.getLogger(__name__).info("%s: %d parameters in the layers", arguments.output, info["encoder_parameters"])


def _refuse_together(arguments: argparse.Namespace) -> None:
    """Refuse options that do not go together, before anything is read.

    Raises:
        ExciseError: some do not.
    """
    from excise.errors import ExciseError, unknown
    from excise.retrieval.shrinking import REPAIRS

    if arguments.repair not in REPAIRS:
        raise unknown("repair", arguments.repair, REPAIRS)
    if arguments.scores is None and (arguments.neurons or arguments.heads or not arguments.keep_layers):
        raise ExciseError("--scores is missing; without it only layers can be dropped (--keep-layers)")
    if (arguments.time is None) != (arguments.latency is None):
        raise ExciseError("--time and --latency belong together: excise encoder-latency times this machine")
    if arguments.time is not None and (arguments.neurons or arguments.heads or arguments.keep_layers):
        raise ExciseError("--time decides how many units stay: leave --neurons, --heads and --keep-layers out")


def _scores(path: Path | None, dense: "Encoder") -> "tuple[str, dict[str, Tensor]]":
    """Method and scores; where there are none, all units alike.

    Raises:
        ExciseError: the file holds something else, or was made for other weights.
    """
    from excise.artefacts import read_tensors
    from excise.errors import ExciseError
    from excise.retrieval.importance import METHODS

    if path is None:
        shapes = METHODS["random"](dense, [], 0)
        return "layers", {kind: scores.new_ones(scores.shape) for kind, scores in shapes.items()}
    meta, scores = read_tensors(path)
    if meta.get("stage") != "importance":
        raise ExciseError(f"{path}: written by excise {meta.get('stage')}, not by importance")
    if dense.info["fingerprint"] != meta["model"]["fingerprint"]:
        raise ExciseError(f"{path}: made for other weights than those of {dense.info['id']}")
    return meta["settings"]["method"], scores


def _gone(arguments: argparse.Namespace, settings: "Json") -> str:
    """What was removed, for the model card."""
    if arguments.time is not None:
        return f"neurons and heads removed until documents take {100 * arguments.time:g} % of the time"
    return (
        f"{100 * arguments.neurons:g} % of the neurons and {100 * arguments.heads:g} % of the heads of layers "
        f"{settings['layers']} removed"
    )


def _within_time(
    arguments: argparse.Namespace, dense: "Encoder", method: str, scores: "dict[str, Tensor]"
) -> "Structure":
    """What stays within ``--time``.

    Raises:
        ExciseError: the table is of another encoder, or the method's scores of neurons and heads cannot be added up.
    """
    from excise.artefacts import read_json
    from excise.config.retrieval import IN_ONE_UNIT
    from excise.errors import ExciseError
    from excise.retrieval.budget import within

    table = read_json(arguments.latency)
    meta = table.get("meta", {})
    if meta.get("stage") != "encoder-latency" or meta["model"]["fingerprint"] != dense.info["fingerprint"]:
        raise ExciseError(f"{arguments.latency}: not what excise encoder-latency wrote for {dense.info['id']}")
    if method not in IN_ONE_UNIT:
        raise ExciseError(
            f"--time with {method}: its scores of neurons and of heads have different units; score with "
            f"{' or '.join(IN_ONE_UNIT)}"
        )
    return within(scores, table, arguments.time)


def _about(arguments: argparse.Namespace, method: str, structure: "Structure", total: int) -> "About":
    """What tables say of it; the size is the per cent of the units that were removed, or the layers that stay."""
    from excise.config.retrieval import TEXTLESS
    from excise.tasks.measurement import About

    share = 1 - arguments.time if arguments.time is not None else max(arguments.neurons, arguments.heads)
    return About(
        kind="control" if method in TEXTLESS else "candidate",
        method=method,
        series=arguments.name or method,
        size=round(100 * share, 6) if share else len(structure.layers),
        share=share or 1 - len(structure.layers) / total,
    )


def _layers(text: str | None, total: int) -> list[int] | None:
    """The layers that ``--keep-layers`` names: a list, or a number of evenly spaced ones.

    Raises:
        ExciseError: it is neither.
    """
    from excise.errors import ExciseError
    from excise.retrieval.selection import evenly

    if text is None:
        return None
    parts = text.split(",")
    if not all(part.strip().isdecimal() for part in parts):
        raise ExciseError(f"--keep-layers {text}: expected layers such as 0,3,5, or how many of the {total} stay")
    numbers = [int(part) for part in parts]
    return numbers if len(numbers) > 1 else evenly(total, numbers[0])
