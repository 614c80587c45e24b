"""Write an encoder, dense or cut, as one ONNX file, and compare its embeddings in onnxruntime with those of torch."""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this stage."""
    parser.add_argument("--model", type=Path, required=True, help="folder of an encoder, dense or cut")
    parser.add_argument("--threads", type=int, help="CPU threads of torch (default: torch's own choice)")
    parser.add_argument(
        "--output", type=Path, required=True, help="file to write; MODEL/onnx/model.onnx is where other tools look"
    )


def run(arguments: argparse.Namespace) -> None:
    """Load, write, compare."""
    import logging

    from excise.models.encoder import load_encoder
    from excise.provenance import provenance
    from excise.retrieval.exchange import OUTPUTS, export
    from excise.stages.options import set_threads

    threads = set_threads(arguments.threads)
    encoder = load_encoder(arguments.model)
    settings = {"pooling": encoder.pooling.mode, "normalise": encoder.pooling.normalise, "threads": threads}
    meta = provenance("onnx", settings, packages=("torch", "transformers", "onnx", "onnxscript"), model=encoder.info)
    apart = export(encoder, arguments.output, meta)
    logging.getLogger(__name__).info(
        "%s: outputs %s; embeddings in onnxruntime differ by %.1e of their length",
        arguments.output,
        ", ".join(OUTPUTS),
        apart,
    )
