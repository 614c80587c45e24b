"""Show which tokens the selected neurons speak for and against (logit lens).

Column i of a layer's output projection, through the final norm and the unembedding. A picture of what was found, not a
measurement: it leaves out the layers between the neuron and the logits.
"""

import argparse
from pathlib import Path

from excise.stages.options import add_model_arguments, set_threads


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this stage."""
    add_model_arguments(parser, model="folder of the unpruned model", spread=False)
    parser.add_argument("--units", type=Path, required=True, help="unit list of neurons, JSON")
    parser.add_argument("--neurons", type=int, default=20, help="how many neurons, first ranks first (default 20)")
    parser.add_argument("--tokens", type=int, default=8, help="tokens for each, and tokens against (default 8)")
    parser.add_argument("--output", type=Path, required=True, help="neurons and their tokens, JSON")


def run(arguments: argparse.Namespace) -> None:
    """Read the list, look through the lens, write the tokens."""
    from excise.artefacts import write_json
    from excise.edits.unit_list import check_fits, read_units
    from excise.errors import ExciseError
    from excise.evaluation.variant import units_info
    from excise.logit_lens import looked_at, promoted
    from excise.models.loading import device_type, identity, load_tokenizer, resolve_device
    from excise.models.partial import load_modules
    from excise.provenance import provenance

    for name in ("neurons", "tokens"):
        if getattr(arguments, name) < 1:
            raise ExciseError(f"--{name} {getattr(arguments, name)}: must be at least 1")
    threads = set_threads(arguments.threads)
    units = read_units(arguments.units)
    if units["unit"] != "neuron":
        raise ExciseError(
            f"{arguments.units}: a list of unit {units['unit']}; the logit lens reads neurons, whose output does not "
            "depend on the input"
        )
    model_facts = identity(arguments.model, arguments.dtype)
    check_fits(units, model_facts["fingerprint"], where=str(arguments.units))
    first = units["rows"][: arguments.neurons]
    neurons = [(row["layer"], row["neuron"]) for row in first]
    model = load_modules(
        arguments.model,
        lambda model: looked_at(model, neurons),
        dtype=arguments.dtype,
        device=str(resolve_device(arguments.device)),
    )
    tokenizer = load_tokenizer(arguments.model)
    speaks_for, against = promoted(model, neurons, arguments.tokens)

    def words(lists: list[list[int]]) -> list[list[str]]:
        return [[str(tokenizer.decode([token])) for token in tokens] for tokens in lists]

    rows = zip(first, words(speaks_for), words(against), strict=True)
    write_json(
        arguments.output,
        provenance(
            "logit-lens",
            {
                "neurons": arguments.neurons,
                "tokens": arguments.tokens,
                "device": device_type(arguments.device),
                "threads": threads,
            },
            packages=("torch", "transformers", "tokenizers"),
            model=model_facts,
            units=units_info(units, arguments.units),
        ),
        {
            "name": units["name"],
            "neurons": [
                {"layer": row["layer"], "neuron": row["neuron"], "rank": row.get("rank"), "for": plus, "against": minus}
                for row, plus, minus in rows
            ],
        },
    )
