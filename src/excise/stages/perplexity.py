"""Measure a model's perplexity on a text, by a named protocol.

windows (SparseGPT, Wanda, SparC3): documents joined by the separator, tokenised once, non-overlapping windows, tail
dropped. sliding: overlapping windows, each token counted once, empty documents dropped. Numbers of different protocols,
lengths or texts are not comparable; the protocol's full name is in the result. So is the loss of each window, from
which the interval of a change of perplexity is made.
"""

import argparse
from pathlib import Path

from excise.stages.options import add_model_arguments, set_threads, unescaped


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this stage."""
    from excise.config.evaluation import Protocol
    from excise.config.options import add_options

    add_model_arguments(parser)
    parser.add_argument("--units", type=Path, help="unit list to apply in memory (default: none)")
    parser.add_argument("--text", type=Path, required=True, help="text, JSONL with a document a line")
    parser.add_argument("--label", help="what to call the text (default: as the text file says, or its name)")
    add_options(parser, Protocol)
    parser.add_argument("--output", type=Path, required=True, help="perplexity, JSON")


def run(arguments: argparse.Namespace) -> None:
    """Tokenise, plan the windows, run the model, write the result."""
    import math

    import torch

    from excise.artefacts import read_jsonl, sha256_file, write_json
    from excise.errors import ExciseError
    from excise.evaluation import perplexity
    from excise.evaluation.likelihood import check_head
    from excise.evaluation.variant import load_variant
    from excise.models.encoding import load_encoder
    from excise.models.loading import device_type, load_config, refuse_beyond_positions
    from excise.progress import Progress
    from excise.provenance import provenance

    refuse_beyond_positions(load_config(arguments.model), arguments.seqlen)
    threads = set_threads(arguments.threads)
    written, documents = read_jsonl(arguments.text, ("text",))
    if not any(row["text"].strip() for row in documents):
        raise ExciseError(f"{arguments.text}: no text in it")
    separator = unescaped(arguments.separator)
    text = perplexity.join([row["text"] for row in documents], separator, protocol=arguments.protocol)
    encoder = load_encoder(arguments.model)
    ids = torch.tensor(encoder.text(text))
    size = {name: getattr(arguments, name) for name in ("seqlen", "stride", "windows", "skip")}
    windows = perplexity.plan(len(ids), arguments.protocol, **size)

    variant = load_variant(arguments.model, arguments.units, dtype=arguments.dtype, device=arguments.device)
    check_head(variant.model)
    with Progress(len(windows), "windows", "perplexity") as progress:
        options = {"first": encoder.window_first, "batch_size": arguments.batch_size}
        losses = perplexity.loss(variant.model, ids, windows, **options, done=progress.advance)
    tokens = sum(loss.tokens for loss in losses)
    nll = math.fsum(loss.nll for loss in losses) / tokens
    if nll > 700:
        raise ExciseError(f"mean loss of {nll:.4g} nats a token: its exponential is not a number that can be written")
    settings = {
        **size,
        "separator": separator,
        "batch_size": arguments.batch_size,
        "device": device_type(arguments.device),
        "threads": threads,
        "text": sha256_file(arguments.text),
    }
    packages = ("torch", "transformers", "tokenizers")
    body = {
        "perplexity": math.exp(nll),
        "nll": nll,
        "tokens": tokens,
        "windows": len(windows),
        "protocol": perplexity.protocol_name(arguments.protocol, **size, begins=encoder.window_first is not None),
        "name": arguments.text.stem,
        "text": arguments.label or written.get("label") or arguments.text.stem,
        "by_window": {"nll": [loss.nll for loss in losses], "tokens": [loss.tokens for loss in losses]},
    }
    write_json(arguments.output, provenance("perplexity", settings, packages=packages, **variant.made_with), body)
