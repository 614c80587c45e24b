"""Check that a model can be used, and write down what it is, without loading it.

The fingerprint is computed again from the weights and compared with the one taken when the model was fetched.
"""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this stage."""
    parser.add_argument("--model", type=Path, required=True, help="model folder")
    parser.add_argument(
        "--need",
        nargs="+",
        metavar="UNIT=NUMBER",
        default=[],
        help="most units of a kind that will be pruned, such as neuron=300 head=20 (default: not checked)",
    )
    parser.add_argument(
        "--need-bias",
        nargs="+",
        metavar="UNIT",
        default=[],
        help="units whose output projections must be able to keep biases (default: not checked)",
    )
    parser.add_argument(
        "--dtype", default="float32", help="float32, bfloat16 or float64: what it will run in (default float32)"
    )
    parser.add_argument("--output", type=Path, required=True, help="model facts, JSON")


def run(arguments: argparse.Namespace) -> None:
    """Read the configuration and the headers of the weights, check, write."""
    import logging

    from excise.artefacts import read_json, write_json
    from excise.errors import ExciseError, unknown
    from excise.models.biases import refuse_without_bias
    from excise.models.encoding import load_encoder
    from excise.models.folders import checksums
    from excise.models.loading import DTYPES, SOURCE_FILE, facts, identity, load_config
    from excise.models.units import axis
    from excise.provenance import provenance

    if arguments.dtype not in DTYPES:
        raise unknown("dtype", arguments.dtype, DTYPES)
    found = facts(arguments.model)
    known = identity(arguments.model, arguments.dtype)
    if known["fingerprint"] != found["fingerprint"]:
        raise ExciseError(
            f"{arguments.model}: the weights are not those that were fetched (fingerprint {found['fingerprint'][:12]}, "
            f"fetched {known['fingerprint'][:12]}). If the change is meant, fetch the model again: excise fetch-model"
        )
    source = arguments.model / SOURCE_FILE
    files = read_json(source).get("files") if source.is_file() else None
    present = checksums(arguments.model)
    if files is not None and files != present:
        changed = sorted(name for name in files.keys() | present.keys() if files.get(name) != present.get(name))
        raise ExciseError(
            f"{arguments.model}: {', '.join(changed)} changed since the model was fetched. If the change is meant, "
            "fetch the model again: excise fetch-model"
        )
    config = load_config(arguments.model)
    for need in arguments.need:
        unit, _, number = need.partition("=")
        if not number.isdecimal():
            raise ExciseError(f"--need {need}: write UNIT=NUMBER, such as neuron=300")
        layers, size = axis(config, unit).shape
        if int(number) > layers * size:
            raise ExciseError(
                f"{known['id']}: {number} units of kind {unit} are to be selected; it has {layers * size} ({layers} "
                f"layers x {size}). Ask for fewer."
            )
    for unit in arguments.need_bias:
        for path, _ in axis(config, unit).sites:
            refuse_without_bias(found["architecture"], path)
    control = load_encoder(arguments.model).facts()
    write_json(
        arguments.output,
        provenance("inspect", {"dtype": arguments.dtype}, model=known),
        {
            "id": known["id"],
            "revision": known["revision"],
            **found,
            "control_tokens": control,
        },
    )
    logging.getLogger(__name__).info(
        "%s: %s, %d layers x %d neurons, %d parameters",
        *(known["id"], found["architecture"], found["layers"], found["neurons_per_layer"], found["parameters"]),
    )
