"""Remove heads one after the other as long as the model still does the task: which are left, by name.

The manifest names heads as L7H3. Held-out pairs say whether what is left does the task on pairs that had no part in it.
"""

import argparse
from pathlib import Path

from excise.artefacts import Json
from excise.stages.circuit_options import PACKAGES, add_pair_arguments, graph_meta, opened


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this stage."""
    from excise.config.circuit_options import HeadRemoval
    from excise.config.options import add_options

    add_pair_arguments(parser)
    add_options(parser, HeadRemoval)
    parser.add_argument("--judge", type=Path, help="held-out pairs, JSONL, to measure what is left on")
    parser.add_argument("--output", type=Path, required=True, help="manifest, JSON")


def run(arguments: argparse.Namespace) -> None:
    """Read, remove, judge, write."""
    import logging

    from excise.artefacts import sha256_file, write_json
    from excise.circuits.acdc import measured_without, remove_heads
    from excise.circuits.batches import make_batches
    from excise.circuits.run import prepare
    from excise.data.pairs import read_pairs
    from excise.errors import ExciseError
    from excise.models.loading import input_device
    from excise.provenance import provenance

    if arguments.judge is not None and sha256_file(arguments.judge) == sha256_file(arguments.pairs):
        raise ExciseError("--judge: the pairs that heads are removed on cannot judge the result; give the other half")
    found = opened(arguments)
    stream, logger = found.stream, logging.getLogger(__name__)
    if sum(len(batch.ids) for batch in found.batches) == 1:
        logger.warning("one pair: what is left may do this pair and nothing else; give several templates")
    choice = {name: getattr(arguments, name) for name in ("form", "threshold")}
    removal = remove_heads(
        stream, found.prepared(), objective=arguments.objective, together=arguments.together, **choice
    )
    body: Json = {
        "heads": int(removal.kept.numel()),
        "kept": [f"L{layer}H{head}" for layer, head in removal.kept.nonzero().tolist()],
        "removed": [f"L{layer}H{head}" for layer, head in (~removal.kept).nonzero().tolist()],
        "initial": removal.initial,
        "final": removal.final,
        "all_removed": removal.all_removed,
        "runs": removal.runs,
        "judged": None,
    }
    judged = {}
    if arguments.judge is not None:
        _, pairs = read_pairs(arguments.judge, stream.model.config)
        batches = [batch.to(input_device(stream.model)) for batch in make_batches(pairs, arguments.batch_size)]
        held_out = [prepare(stream, batch, arguments.ablation, found.means) for batch in batches]
        body["judged"] = measured_without(stream, held_out, arguments.objective, ~removal.kept)
        judged = {"judged_on": {"sha256": sha256_file(arguments.judge), "pairs": len(pairs)}}
    meta = provenance(
        "remove-heads",
        {**found.settings, **choice},
        packages=PACKAGES,
        method="remove-heads",
        graph=graph_meta(stream),
        **found.meta,
        **judged,
    )
    write_json(arguments.output, meta, body)
    logger.info(
        "%d of %d heads kept; objective %.3f, from %.3f",
        len(body["kept"]),
        body["heads"],
        removal.final,
        removal.initial,
    )
