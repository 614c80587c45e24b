"""What a model can do: tasks of lm-evaluation-harness (Gao et al. 2021), on the model in memory.

The harness makes the prompts, runs the model and computes every figure and its standard error. Nothing is scored here,
so that the numbers are those that others report for the same task, version and number of examples in the prompt.
"""

import hashlib
import importlib.util
import math
import os
import sys
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from numbers import Real
from pathlib import Path
from statistics import fmean
from typing import Any

from excise.artefacts import Json
from excise.errors import ExciseError, near
from excise.models.families import architecture
from excise.models.loading import max_positions
from excise.models.unpatched import assert_unpatched
from excise.progress import SPARSE_SECONDS

SEEDS = {"random": 0, "numpy": 1234, "torch": 1234, "fewshot": 1234}
"""The harness's own, so that the examples in the prompts are those of its command line."""


def check_installed() -> None:
    """Refuse to go on where the harness is not installed; imports nothing.

    Raises:
        ExciseError: it is not.
    """
    if importlib.util.find_spec("lm_eval") is None:
        raise ExciseError(
            "evaluation.capability.tasks need lm-evaluation-harness, which is not installed here. Install it: "
            "pip install 'excise[harness]'"
        )


def asked(task: str) -> tuple[str, int | None]:
    """``hellaswag`` or ``mmlu=5``: the harness's name, and how many examples stand in the prompt.

    Raises:
        ExciseError: what follows ``=`` is not a number.
    """
    name, _, shots = task.partition("=")
    if not name or (shots and not shots.isdigit()) or task.endswith("="):
        raise ExciseError(f"--tasks {task}: expected NAME or NAME=SHOTS, for example hellaswag or mmlu=5")
    return name, int(shots) if shots else None


def settings(arguments: Namespace) -> Json:
    """What an artefact says of the tasks that were asked for; checked before anything is loaded.

    Raises:
        ExciseError: the harness is not installed, or a number or a task's name cannot be.
    """
    check_installed()
    for task in arguments.tasks:
        asked(task)
    for option, least in (("num_fewshot", 0), ("limit", 1)):
        value = getattr(arguments, option)
        if value is not None and value < least:
            raise ExciseError(f"--{option.replace('_', '-')} {value}: must be at least {least}")
    return {key: getattr(arguments, key) for key in ("tasks", "num_fewshot", "limit")}


@contextmanager
def task_data(folder: Path | None, *, offline: bool) -> Iterator[None]:
    """Where task data lie while a block runs.

    Args:
        folder: where ``datasets`` keeps prepared data; None leaves the Hugging Face cache.
        offline: use what is there and ask no hub.
    """
    os.environ.setdefault("DISABLE_MULTIPROC", "1")  # its bootstrap would start a process for every core of the node
    if not sys.stderr.isatty():
        os.environ.setdefault("TQDM_MININTERVAL", str(SPARSE_SECONDS))
    import datasets
    from huggingface_hub import constants

    datasets.disable_progress_bars()
    before = datasets.config.HF_DATASETS_CACHE, datasets.config.HF_HUB_OFFLINE, constants.HF_HUB_OFFLINE
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        datasets.config.HF_DATASETS_CACHE = folder
    if offline:
        datasets.config.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        datasets.config.HF_DATASETS_CACHE, datasets.config.HF_HUB_OFFLINE, constants.HF_HUB_OFFLINE = before


def load(tasks: Sequence[str], *, num_fewshot: int | None, include_path: Path | None) -> Json:
    """The tasks and groups of these names, with their data, as the harness's ``evaluate`` takes them.

    Args:
        tasks: ``NAME`` or ``NAME=SHOTS``.
        num_fewshot: examples in the prompt, where a name says nothing; None leaves each task its own number.
        include_path: folder of the user's own task files (YAML), which win over the harness's of the same name.

    Returns:
        ``tasks``, ``groups`` and ``group_map``, and ``shown``: what was asked for, a tag replaced by its tasks.

    Raises:
        ExciseError: a name is unknown or comes twice, a task cannot be loaded, or it refuses the number of examples.
    """
    wanted = [asked(task) for task in tasks]
    manager = _manager([name for name, _ in wanted], include_path)
    found: Json = {"tasks": {}, "groups": {}, "group_map": {}, "shown": []}
    for name, shots in wanted:
        if name not in manager.task_index:
            alike = near(name, manager.all_tasks)
            hint = f" Did you mean {' or '.join(map(repr, alike))}?" if alike else ""
            raise ExciseError(f"--tasks: the harness knows no task {name!r}.{hint} 'lm-eval ls tasks' lists them.")
        with _explained(name):
            loaded = manager.load([name])
        if twice := found["tasks"].keys() & loaded["tasks"].keys():
            raise ExciseError(f"--tasks: task {min(twice)!r} is asked for twice (a group holds its tasks)")
        shots = num_fewshot if shots is None else shots
        for leaf, task in loaded["tasks"].items():
            own = task.get_config("num_fewshot")
            if shots is not None and own == 0 and shots != 0:
                raise ExciseError(
                    f"--tasks: {leaf!r} is a zero-shot task by its own file, and {shots} examples are asked for; "
                    f"write {name}=0"
                )
            task.set_config(key="num_fewshot", value=(own or 0) if shots is None else shots)
            task.set_fewshot_seed(seed=SEEDS["fewshot"])
        for part in ("tasks", "groups", "group_map"):
            found[part] |= loaded.get(part, {})
        summed = name in loaded.get("groups", {}) and loaded["groups"][name].has_aggregation
        found["shown"] += [name] if summed else list(loaded["tasks"])
    return found


def _manager(names: Sequence[str], include_path: Path | None) -> Any:
    """The index of tasks; reading the harness's own takes ten seconds, so they are left out where none is needed."""
    from lm_eval.tasks import TaskManager

    if include_path is None:
        return TaskManager()
    if not include_path.is_dir():
        raise ExciseError(f"--include-path {include_path}: no such folder")
    own = TaskManager(include_path=include_path, include_defaults=False)
    return own if _holds(own.task_index, names) else TaskManager(include_path=include_path)


def _holds(index: Mapping[str, Any], names: Sequence[Any]) -> bool:
    """Whether an index has these tasks and, of groups, the tasks in them."""
    for name in names:
        if name not in index:
            return False
        members = index[name].cfg.get("task") if index[name].cfg else None
        if isinstance(members, list) and not (
            all(isinstance(member, str) for member in members) and _holds(index, members)
        ):
            return False
    return True


@contextmanager
def _explained(task: str) -> Iterator[None]:
    """Turn what goes wrong in a task's own file, code or data into a message that names the task."""
    try:
        yield
    except ExciseError:
        raise
    except Exception as error:  # a task may run code of its own: anything can come out of it
        from huggingface_hub import constants

        said = " ".join(f"{type(error).__name__}: {error}".split())[:600]
        hint = (
            " If its data are missing: run excise fetch-tasks where there is a network (a login node)."
            if constants.HF_HUB_OFFLINE
            else ""
        )
        raise ExciseError(f"task {task!r} cannot be used: {said.rstrip('.')}.{hint}") from error


def plan(found: Json, *, limit: int | None) -> dict[str, Json]:
    """Build every request once, to see that it can be done and how much it is.

    Returns:
        By task: documents, requests, characters in all requests and in the longest, and tokens that may be generated.
    """
    result = {}
    for name, task in found["tasks"].items():
        with _explained(name):
            task.build_all_requests(limit=limit)
        texts = [sum(len(part) for part in _strings(instance.args)) for instance in task.instances]
        if not texts:
            raise ExciseError(f"task {name!r} has no documents")
        writes = [i.args[1].get("max_gen_toks", 256) for i in task.instances if i.request_type == "generate_until"]
        result[name] = {
            "version": task.VERSION,
            "num_fewshot": task.get_config("num_fewshot"),
            "documents": len({instance.doc_id for instance in task.instances}),
            "requests": len(texts),
            "characters": sum(texts),
            "longest": max(texts),
            "generated": sum(writes),
        }
    return result


def _strings(arguments: Sequence[Any]) -> list[str]:
    return [part for part in arguments if isinstance(part, str)]


def measure(model: Any, tokenizer: Any, found: Json, *, limit: int | None, batch_size: int) -> Json:
    """Put a model through the tasks.

    The harness's own seeds and its own number of bootstrap iterations are used: the figures are those of its command
    line.

    Returns:
        ``tasks`` and ``groups`` by name, and the names that are ``shown``. Each has ``num_fewshot``, ``documents`` and
        ``metrics``: value, standard error (None where the harness gives none), whether higher is better. A task has
        its ``version``, ``sha256`` over everything that the model was asked, and in a metric that is the mean over
        documents also their values; a group has the names of its tasks.

    Raises:
        ExciseError: a task cannot be run, or the model is patched for LRP.
    """
    import random

    import numpy as np
    import torch
    from lm_eval import evaluator
    from lm_eval.models.huggingface import HFLM

    assert_unpatched(model)
    random.seed(SEEDS["random"])
    np.random.seed(SEEDS["numpy"])  # noqa: NPY002 (the harness draws from the global generators)
    torch.manual_seed(SEEDS["torch"])
    begins = True if architecture(model.config).bos else None  # None: as the tokenizer does
    size = {"batch_size": batch_size, "max_length": max_positions(model.config)}
    lm = HFLM(pretrained=model, tokenizer=tokenizer, add_bos_token=begins, **size)
    raw = evaluator.evaluate(lm, found, limit=limit)
    tasks = {name: _task(name, raw) for name in found["tasks"]}
    groups = {}
    for name, metrics in raw.get("groups", {}).items():
        leaves = [task.task_name for task in found["groups"][name].get_all_tasks()]
        groups[name] = {
            "tasks": leaves,
            "num_fewshot": raw["n-shot"].get(name),
            "documents": sum(tasks[leaf]["documents"] for leaf in leaves),
            "metrics": _metrics(metrics, raw["higher_is_better"].get(name, {})),
        }
    return {"shown": found["shown"], "tasks": tasks, "groups": groups}


def _task(name: str, raw: Json) -> Json:
    """What is kept of one task."""
    samples = raw["samples"][name]
    questions = hashlib.sha256()
    for sample in samples:
        texts = [text for arguments in sample["arguments"] for text in _strings(arguments)]
        questions.update("\0".join([sample["doc_hash"], sample["target_hash"], *texts, ""]).encode())
    metrics = _metrics(raw["results"][name], raw["higher_is_better"][name])
    for key, metric in metrics.items():
        label, _, chosen = key.partition(",")
        values = [sample[label] for sample in samples if sample["filter"] == chosen and label in sample]
        numeric = bool(values) and all(isinstance(value, Real) for value in values)
        if numeric and math.isclose(fmean(values), metric["value"], abs_tol=1e-9):
            metric["per_document"] = [float(value) for value in values]
    return {
        "version": raw["versions"][name],
        "num_fewshot": raw["n-shot"][name],
        "documents": raw["n-samples"][name]["effective"],
        "sha256": questions.hexdigest(),
        "metrics": metrics,
    }


def _metrics(figures: Mapping[str, Any], higher_is_better: Mapping[str, bool]) -> dict[str, Json]:
    """The figures that the harness calls ``METRIC,FILTER``, each with the standard error that stands beside it."""
    found = {}
    for key, value in figures.items():
        label, comma, chosen = key.partition(",")
        if comma and not label.endswith("_stderr"):
            error = figures.get(f"{label}_stderr,{chosen}")
            found[key] = {
                "value": float(value),
                "stderr": float(error) if isinstance(error, Real) else None,
                "higher_is_better": higher_is_better.get(label),
            }
    return found
