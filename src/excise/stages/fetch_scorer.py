"""Load a scorer once, so that its weights are here, and try it.

They stay in the caches that HF_HOME and TORCH_HOME name, where excise score finds them without a network. It scores a
text, an empty one and a long one, alone and together: what cannot fails now. What is written says which scorer that is.
"""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this stage."""
    parser.add_argument("--scorer", required=True, help="detoxify-NAME, hf:ID or any other, as of excise score")
    from excise.config.inputs import ScorerOptions
    from excise.config.options import add_options

    add_options(parser, ScorerOptions)
    parser.add_argument("--output", type=Path, required=True, help="what the scorer is, JSON")


def run(arguments: argparse.Namespace) -> None:
    """Load the scorer, try it, write what it is."""
    import logging

    from excise.artefacts import write_json
    from excise.evaluation import scorers
    from excise.provenance import provenance

    for client in ("huggingface_hub", "httpx", "httpx2"):  # requests and retries are not news
        logging.getLogger(client).setLevel(logging.ERROR)
    module = scorers.module(arguments.scorer)
    checkpoint = Path(arguments.checkpoint) if arguments.checkpoint else None
    told = {"label": arguments.label, "probability": arguments.probability}
    scorer = scorers.load(arguments.scorer, scorers.Options(checkpoint=checkpoint, **told))
    scorers.tried(scorer, arguments.scorer)
    meta = provenance("fetch-scorer", told, modules=[module])
    write_json(arguments.output, meta, {"scorer": scorer.facts})
    logging.getLogger(__name__).info("%s is here", scorer.name)
