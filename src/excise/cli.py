"""The command ``excise``: one subcommand a stage. What a rule runs, a person can type."""

import argparse
import atexit
import gc
import importlib
import io
import logging
import os
import resource
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from excise import __version__, warm
from excise.errors import ExciseError

STAGES = (
    "fetch-model",
    "fetch-text",
    "fetch-prompts",
    "fetch-tasks",
    "fetch-scorer",
    "fetch-collection",
    "split-collection",
    "importance",
    "onnx",
    "encoder-latency",
    "shrink",
    "distil",
    "embed",
    "retrieve",
    "retention",
    "patch-units",
    "term-heads",
    "static-encoder",
    "encoder-cost",
    "inspect",
    "split-prompts",
    "generate",
    "score",
    "reference",
    "attribute",
    "merge",
    "average",
    "contrast",
    "control",
    "weight-relevance",
    "select",
    "step",
    "match",
    "logit-lens",
    "pairs",
    "patch",
    "edges",
    "circuit",
    "faithfulness",
    "remove-edges",
    "remove-heads",
    "draw-circuit",
    "report-circuit",
    "strongest-heads",
    "answer",
    "report-encoders",
    "perplexity",
    "fluency",
    "capability",
    "cost",
    "evaluate",
    "apply",
    "compress",
    "similarity",
    "slice",
    "low-rank",
    "accelerate",
    "summary",
    "choose",
    "winner",
    "report",
    "show",
    "compare-runs",
)
"""In the order of the workflow. Each is a module ``excise.stages.NAME`` with ``add_arguments`` and ``run``."""


def parser(stages_to_load: Sequence[str] = STAGES, *, options: bool = True) -> argparse.ArgumentParser:
    """The command line, whole or of some stages only, or a list of the stages without their options."""
    top = argparse.ArgumentParser(prog="excise", description=importlib.import_module("excise").__doc__)
    top.add_argument("--version", action="version", version=f"excise {__version__}")
    stages = top.add_subparsers(dest="stage", metavar="STAGE", required=True)
    for name in stages_to_load:
        module = importlib.import_module(f"excise.stages.{name.replace('-', '_')}")
        summary, _, rest = (module.__doc__ or "").partition("\n")
        stage = stages.add_parser(
            name, help=summary, description=f"{summary}\n{rest}", formatter_class=argparse.RawDescriptionHelpFormatter
        )
        if options:
            module.add_arguments(stage)
            stage.add_argument("--log", type=Path, help="also write messages and sparse progress to this file")
            stage.set_defaults(run=module.run)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run one stage.

    Returns:
        0 on success, 1 when the input or the result is unusable, 70 on an error in excise itself (argparse exits
        with 2 on a wrong command line).
    """
    atexit.register(gc.freeze)  # the last collection would look through all of torch and transformers, for a second
    for stream in (sys.stdout, sys.stderr):  # a terminal that lacks a letter shows its number, and the stage goes on
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    argv = sys.argv[1:] if argv is None else argv
    known = bool(argv) and argv[0] in STAGES
    arguments = parser(argv[:1] if known else STAGES, options=known).parse_args(argv)
    together = "TORCHELASTIC_RUN_ID" in os.environ  # torchrun started several processes, of which the first speaks
    helper = together and os.environ["RANK"] != "0"
    reads_a_model = "device" in arguments or getattr(arguments, "model", None) is not None
    if reads_a_model and not together and (status := warm.run(argv)) is not None:
        return status
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stderr)]
    if arguments.log and not helper:
        arguments.log.parent.mkdir(parents=True, exist_ok=True)
        handlers.append(logging.FileHandler(arguments.log, mode="w", encoding="utf-8"))
    logging.basicConfig(
        level=logging.ERROR if helper else logging.INFO,
        format=f"%(asctime)s excise {arguments.stage}: %(message)s",
        datefmt="%H:%M:%S",
        handlers=handlers,
        force=True,
    )
    start = time.monotonic()
    try:
        arguments.run(arguments)
    except ExciseError as error:
        logging.getLogger("excise").error("error: %s", error)
        return 1
    except Exception:  # the log file, too, must hold what went wrong
        logging.getLogger("excise").exception("unexpected error; please report it with this traceback")
        return 70
    if arguments.log:
        logging.getLogger("excise").info("took %.1f s and at most %d MB", time.monotonic() - start, _peak_mb())
    return 0


def _peak_mb() -> int:
    """Largest resident set of this process so far, in MB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (1e6 if sys.platform == "darwin" else 1e3))
