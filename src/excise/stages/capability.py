"""Put a model through tasks of lm-evaluation-harness.

The harness (pip install 'excise[harness]') makes the prompts, runs the model and computes every figure, with its own
seeds: the numbers are those of its command line on the exported model.
"""

import argparse
from pathlib import Path

from excise.stages.options import add_model_arguments, set_threads


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this stage."""
    from excise.config.evaluation import Capability
    from excise.config.options import add_options

    add_model_arguments(parser)
    parser.add_argument("--units", type=Path, help="unit list to apply in memory (default: none)")
    add_options(parser, Capability)
    parser.add_argument(
        "--data",
        type=Path,
        help="folder that excise fetch-tasks filled; no hub is asked (default: the Hugging Face cache, and the hub)",
    )
    parser.add_argument("--output", type=Path, required=True, help="capability, JSON")


def run(arguments: argparse.Namespace) -> None:
    """Load tasks and model, run the harness, write what it found."""
    from excise.evaluation import capability

    settings = capability.settings(arguments)

    from excise.artefacts import write_json
    from excise.evaluation.variant import load_variant
    from excise.models.loading import device_type, load_tokenizer
    from excise.provenance import provenance

    threads = set_threads(arguments.threads)
    with capability.task_data(arguments.data, offline=arguments.data is not None):
        own = Path(arguments.include_path) if arguments.include_path else None
        found = capability.load(arguments.tasks, num_fewshot=arguments.num_fewshot, include_path=own)
        variant = load_variant(arguments.model, arguments.units, dtype=arguments.dtype, device=arguments.device)
        body = capability.measure(
            variant.model,
            load_tokenizer(arguments.model),
            found,
            limit=arguments.limit,
            batch_size=arguments.batch_size,
        )
    write_json(
        arguments.output,
        provenance(
            "capability",
            {
                **settings,
                "seeds": capability.SEEDS,
                "batch_size": arguments.batch_size,
                "device": device_type(arguments.device),
                "threads": threads,
            },
            packages=("lm-eval", "datasets", "torch", "transformers", "tokenizers"),
            **variant.made_with,
        ),
        body,
    )
