"""Make an encoder smaller: remove the least important neurons and heads, or whole layers, and save what is left.

What is removed is really cut out of the matrices. The folder is read back, and its embeddings compared, before it gets
its name.
"""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this stage."""
    parser.add_argument("--model", type=Path, required=True, help="folder of a dense encoder")
    parser.add_argument("--scores", type=Path, required=True, help="scores of neurons and heads (excise importance)")
    parser.add_argument("--neurons", type=float, default=0.0, help="share of the neurons to remove (default 0)")
    parser.add_argument("--heads", type=float, default=0.0, help="share of the heads to remove (default 0)")
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
    parser.add_argument("--threads", type=int, help="CPU threads of torch (default: torch's own choice)")
    parser.add_argument("--output", type=Path, required=True, help="folder to make")


def run(arguments: argparse.Namespace) -> None:
    """Choose, repair, cut, save, read back."""
    import logging

    from excise.artefacts import SCHEMA, read_tensors, sha256_file
    from excise.digest import digest
    from excise.errors import ExciseError, unknown
    from excise.models.encoder import load_encoder
    from excise.models.folders import refuse_foreign
    from excise.retrieval import selection
    from excise.retrieval.saving import card, is_plain, save, size_info
    from excise.retrieval.shrinking import REPAIRS, shrink
    from excise.retrieval.texts import read_calibration, texts_info
    from excise.stages.options import set_threads

    if arguments.repair not in REPAIRS:
        raise unknown("repair", arguments.repair, REPAIRS)
    refuse_foreign(arguments.output)
    meta, scores = read_tensors(arguments.scores)
    if meta.get("stage") != "importance":
        raise ExciseError(f"{arguments.scores}: written by excise {meta.get('stage')}, not by importance")
    paths = {"document": arguments.texts or [], "query": arguments.queries or []}
    texts = read_calibration(paths) if arguments.repair != "none" else []
    total = len(scores["neurons"])
    structure = selection.structure(
        scores,
        neurons=arguments.neurons,
        heads=arguments.heads,
        scope=arguments.scope,
        layers=_layers(arguments.keep_layers, total),
    )
    set_threads(arguments.threads)
    dense = load_encoder(arguments.model)
    if dense.structure is not None or dense.info["fingerprint"] != meta["model"]["fingerprint"]:
        raise ExciseError(f"{arguments.scores}: made for other weights than those of {arguments.model}")
    small = shrink(dense, structure, repair=arguments.repair, texts=texts)
    info = size_info(small)
    settings = {
        "scores": sha256_file(arguments.scores),
        "method": meta["settings"]["method"],
        "neurons": arguments.neurons,
        "heads": arguments.heads,
        "scope": arguments.scope,
        "layers": [row.layer for row in structure.layers],
        "repair": arguments.repair,
        **texts_info(paths, texts),
    }
    name = f"{dense.info['id']} shrunk"
    source = {"schema": SCHEMA, "code": digest("stages.shrink"), "id": name}
    source |= {"source": "excise shrink", "base": dense.info, "settings": settings, "size": info}
    what = (
        f"{100 * arguments.neurons:g} % of the neurons and {100 * arguments.heads:g} % of the heads of layers "
        f"{settings['layers']} removed, chosen by `{settings['method']}`, repair `{arguments.repair}`"
    )
    lines = card(name, dense.info, what, info, is_plain(structure))
    save(small, arguments.model, arguments.output, source=source | {"kept": structure.as_json()}, card=lines)
    logging.getLogger(__name__).info("%s: %d parameters in the layers", arguments.output, info["encoder_parameters"])


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
