"""Make static vectors of an encoder: one vector per token, averaged over a text.

The cheapest peer of a smaller encoder, by model2vec's recipe: every token of the vocabulary goes through the encoder
once; no texts are needed.
"""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this stage."""
    parser.add_argument("--model", type=Path, required=True, help="folder of a dense encoder")
    parser.add_argument("--name", default="static", help="its name in tables (default static)")
    parser.add_argument("--device", default="cpu", help="auto, cpu, cuda, mps (default cpu)")
    parser.add_argument("--threads", type=int, help="CPU threads of torch (default: torch's own choice)")
    parser.add_argument("--output", type=Path, required=True, help="folder to make")


def run(arguments: argparse.Namespace) -> None:
    """Embed the vocabulary, weight, save, read back."""
    from dataclasses import asdict

    from excise.models.encoder import load_encoder, refuse_cut
    from excise.models.folders import refuse_foreign
    from excise.retrieval.saving import card, described, save, size_info
    from excise.retrieval.static import RARITY, static
    from excise.stages.options import set_threads
    from excise.tasks.measurement import About

    refuse_foreign(arguments.output)
    set_threads(arguments.threads)
    dense = load_encoder(arguments.model, device=arguments.device)
    refuse_cut(dense, arguments.model)
    table = static(dense)
    name = f"{dense.info['id']} static"
    about = About(method="static", series=arguments.name, share=1.0)
    source = described("static-encoder", name, dense.info, {"rarity": RARITY}, asdict(about))
    what = (
        "one vector per token by model2vec's recipe (centred, weighted by rarity), averaged over the tokens of a text"
    )
    save(
        table,
        arguments.model,
        arguments.output,
        source=source,
        card=card(name, dense.info, what, size_info(table), False),
    )
