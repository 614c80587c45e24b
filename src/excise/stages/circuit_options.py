"""What the stages of circuits share: their options, and a model opened with the pairs that it is measured on."""

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from excise.artefacts import Json
from excise.stages.options import add_model_arguments, set_threads

if TYPE_CHECKING:
    import torch

    from excise.circuits.batches import PairBatch
    from excise.circuits.run import Prepared
    from excise.circuits.stream import Stream


def add_pair_arguments(parser: argparse.ArgumentParser, *, objective: bool = True) -> None:
    """The model, its pairs, and what is replaced by what; ``objective``: and what is measured."""
    from excise.config.circuit_options import Running
    from excise.config.options import add_options

    add_model_arguments(parser, spread=False)
    parser.add_argument("--pairs", type=Path, required=True, help="pairs, JSONL, of excise pairs")
    add_options(parser, Running, only=["ablation", "batch_size", *(["objective"] if objective else [])])


@dataclass(frozen=True)
class Opened:
    """A model and its pairs.

    Attributes:
        stream: the model.
        batches: the pairs.
        means: mean writes, where the ablation is ``mean``.
        meta: what provenance says of all of it: ``model``, ``pairs``; and the settings they share.
        settings: options that the numbers depend on.
        pairs_meta: the provenance of the pairs.
    """

    stream: "Stream"
    batches: "list[PairBatch]"
    means: "torch.Tensor | None"
    meta: Json
    settings: Json
    pairs_meta: Json

    def prepared(self) -> "list[Prepared]":
        """Every batch, both prompts run."""
        from excise.circuits.run import prepare
        from excise.models.loading import input_device

        device = input_device(self.stream.model)
        return [prepare(self.stream, batch.to(device), self.settings["ablation"], self.means) for batch in self.batches]


def opened(arguments: argparse.Namespace) -> Opened:
    """Check the options, read the pairs, load the model.

    Raises:
        ExciseError: an option is not known, the pairs do not fit the model, or its family has no circuits here.
    """
    from excise.artefacts import sha256_file
    from excise.circuits.batches import make_batches
    from excise.circuits.run import mean_writes
    from excise.circuits.stream import Stream, refuse_family
    from excise.data.pairs import read_pairs
    from excise.errors import ExciseError
    from excise.models.loading import SPREAD, device_type, identity, load_config, load_model

    if arguments.device == SPREAD:
        raise ExciseError("--device spread: circuits are found on one device (auto, cpu, cuda, mps)")
    threads = set_threads(arguments.threads)
    config = load_config(arguments.model)
    refuse_family(config)
    pairs_meta, pairs = read_pairs(arguments.pairs, config)
    batches = make_batches(pairs, arguments.batch_size)
    stream = Stream(load_model(arguments.model, dtype=arguments.dtype, device=arguments.device))
    settings = {
        "objective": arguments.objective,
        "ablation": arguments.ablation,
        "batch_size": arguments.batch_size,
        "device": device_type(arguments.device),
        "threads": threads,
    }
    about = {name: pairs_meta.get(name) for name in ("task", "half")}
    meta = {
        "model": identity(arguments.model, arguments.dtype),
        "pairs": {**about, "sha256": sha256_file(arguments.pairs), "pairs": len(pairs)},
    }
    means = mean_writes(stream, batches) if arguments.ablation == "mean" else None
    return Opened(stream, batches, means, meta, settings, pairs_meta)


def graph_meta(stream: "Stream") -> Json:
    """The graph, as files keep it."""
    graph = stream.graph
    return {"layers": graph.layers, "heads": graph.heads, "parallel": graph.parallel}


PACKAGES = ("torch", "transformers")
