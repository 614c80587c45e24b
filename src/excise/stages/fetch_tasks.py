"""Fetch the data of lm-evaluation-harness tasks, and check that every request can be made.

What is written says how much work the tasks are. excise capability reads the data afterwards without a network.
"""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this stage."""
    from excise.config.evaluation import Tasks
    from excise.config.options import add_options

    add_options(parser, Tasks)
    parser.add_argument("--data", type=Path, help="folder to keep the data in (default: the Hugging Face cache)")
    parser.add_argument("--output", type=Path, required=True, help="what each task will ask, JSON")


def run(arguments: argparse.Namespace) -> None:
    """Load the tasks, build their requests, write how much they are."""
    import logging

    from excise.artefacts import write_json
    from excise.evaluation import capability
    from excise.provenance import provenance

    settings = capability.settings(arguments)
    with capability.task_data(arguments.data, offline=False):
        own = Path(arguments.include_path) if arguments.include_path else None
        found = capability.load(arguments.tasks, num_fewshot=arguments.num_fewshot, include_path=own)
        tasks = capability.plan(found, limit=arguments.limit)
    write_json(
        arguments.output, provenance("fetch-tasks", settings, packages=("lm-eval", "datasets")), {"tasks": tasks}
    )
    logging.getLogger(__name__).info(
        "%d tasks, %d documents, %d requests",
        len(tasks),
        sum(task["documents"] for task in tasks.values()),
        sum(task["requests"] for task in tasks.values()),
    )
