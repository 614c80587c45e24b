"""Prune a model from a neuron list and save it as a Hugging Face folder.

The neuron list is all that is needed beside the original weights; weights with another fingerprint are refused.
"""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this stage."""
    parser.add_argument("neurons", type=Path, help="neuron list, JSON")
    parser.add_argument("model", type=Path, help="folder of the unpruned model")
    parser.add_argument("--evaluations", type=Path, nargs="*", default=[], help="evaluations for the model card")
    parser.add_argument("--output", type=Path, required=True, help="folder to make")


def run(arguments: argparse.Namespace) -> None:
    """Check that list and model fit, then export."""
    import logging

    from excise.artefacts import read_json
    from excise.edits.ablation import check_fits, read_selection
    from excise.edits.export import export
    from excise.models.loading import identity

    selection = read_selection(arguments.neurons)
    base = identity(arguments.model, "as on disk")
    check_fits(selection, base["fingerprint"], where=str(arguments.neurons))
    evaluations = [read_json(path) for path in arguments.evaluations]
    export(arguments.model, selection, arguments.output, base=base, evaluations=evaluations)
    logging.getLogger(__name__).info("%s: %d neurons of %s", arguments.output, len(selection["neurons"]), base["id"])
