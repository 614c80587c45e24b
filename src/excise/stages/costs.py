"""What a job asks of the machine that runs it, as functions of settings and sizes. They are limits, not estimates.

Memory (MB): base + 1.2 x weights + numbers x tokens at once x layers x neurons per layer x bytes. The base is Python
and torch (500, of which a tiny model used 415; 1000 in its CUDA build, not measured on a GPU) and the Snakemake that
runs a Slurm job (150). The demo's LRP on C4 used 1.73 GB, with that Snakemake 1.88, of the 2.05 GB that this gives. A
job that holds rows needs 6 x its input files, since Python's objects take 5.2 times what the JSON does.

Minutes: 10 + tokens x parameters x 2 x passes / speed; a backward pass counts as two forward passes. A job that scores
rows: 20 + rows x 0.3 s.

An encoder: base + 500 + 5 x weights; 15 minutes + tokens x weights / 4 x 2 x passes / speed.

An export: base + 2 x weights, the second for what pruning changes; the demo's took base + 1.5.
"""

import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Settings = Mapping[str, Any]
"""A section of the configuration, with its defaults filled in."""

WIDTHS = {"float32": 4, "bfloat16": 2, "float64": 8, "F16": 2, "BF16": 2, "F32": 4, "F64": 8}
"""Bytes of a number, by the name of its dtype in the configuration or in a safetensors file."""

CPU_SPEED = 5e9
"""Operations per second of a thread; the demo reached 2e10 to 4e10 on a shared core."""

GPU_SPEED = 1e13
"""Operations per second; a thirtieth of an A100's peak in bfloat16; not measured."""

PROMPT = 64
"""Tokens allowed for a prompt."""

SAMPLE = 512
"""Tokens allowed for a sample of a ready-made file."""

REQUEST = 2048
"""Most tokens allowed for a request of a capability task."""

SCORING = 0.3
"""Seconds to score a row; a BERT base, as Detoxify's, took 0.07 on one thread."""


@dataclass(frozen=True)
class Size:
    """How large a model is.

    Attributes:
        parameters: number of weights.
        layers: number of layers.
        neurons: MLP neurons per layer.
        width: bytes of a number.
    """

    parameters: int
    layers: int
    neurons: int
    width: int


@dataclass(frozen=True)
class Cost:
    """What a stage does with a model.

    Attributes:
        at_once: tokens that are in memory together.
        tokens: tokens in all, asked for when the input files are there.
        numbers: how many the job keeps per token and MLP neuron.
        passes: forward passes, of which a backward pass counts two.
        models: how many are in memory.
    """

    at_once: float
    tokens: Callable[[], float]
    numbers: float = 0.5
    passes: int = 1
    models: int = 1

    def mb(self, size: Size) -> float:
        """Memory without the base."""
        per_token = self.numbers * size.layers * size.neurons * size.width
        return (1.2 * self.models * size.parameters * size.width + self.at_once * per_token) / 1e6

    def minutes(self, size: Size, speed: float) -> int:
        """Time, at so many operations per second."""
        work = 2 * self.passes * size.parameters * self.tokens()
        return 10 + math.ceil(work / speed / 60)


EVERY = 4000
"""Samples that a reference set of ``count: all`` is taken to have."""


def generate(sampling: Settings, prompts: str) -> Cost:
    """A shard of the generations for a file of prompts; kept per token: the cache of keys and values."""
    length = PROMPT + sampling["max_new_tokens"]
    number = length * sampling["num_generations"] / sampling["shards"]
    return Cost(sampling["batch_size"] * length, lambda: rows(prompts) * number)


def fluency(sampling: Settings, generations: str) -> Cost:
    """The likelihood of a file of generations."""
    length = PROMPT + sampling["max_new_tokens"]
    return Cost(sampling["batch_size"] * length, lambda: rows(generations) * length)


def _samples(reference: Settings, max_new_tokens: int) -> tuple[int, int]:
    """Samples of a reference set under one seed, and tokens of each."""
    if reference["kind"] == "windows":
        return int(reference["windows"]), int(reference["seqlen"])
    samples = EVERY if reference["count"] == "all" else int(reference["count"])
    return samples, SAMPLE if reference["kind"] == "file" else PROMPT + max_new_tokens


def attribution_jobs(attribution: Settings, reference: Settings, max_new_tokens: int, seeds: int) -> int:
    """Jobs that a method's work on a reference set is cut into, each a part of the set under every seed."""
    if attribution["minutes"] is None:
        return 1
    samples, length = _samples(reference, max_new_tokens)
    tokens_a_job: float = 60 * attribution["minutes"] * attribution["tokens_per_second"]
    batches = math.ceil(samples / int(attribution["batch_size"]))
    return min(math.ceil(seeds * samples * length / tokens_a_job), batches)


def attribute(attribution: Settings, reference: Settings, max_new_tokens: int, seeds: int) -> Cost:
    """A part of a reference set under every seed; kept per token: all activations, for the backward pass."""
    samples, length = _samples(reference, max_new_tokens)
    jobs = attribution_jobs(attribution, reference, max_new_tokens, seeds)
    tokens = seeds * length * math.ceil(samples / jobs)
    return Cost(attribution["batch_size"] * length, lambda: tokens, numbers=8, passes=3)


def perplexity(protocol: Settings, text: str) -> Cost:
    """The windows of a text, or all of it at three bytes per token."""

    def tokens() -> float:
        if protocol["windows"] is not None:
            return float(protocol["windows"] * protocol["seqlen"])
        overlap = protocol["seqlen"] / protocol["stride"] if protocol["protocol"] == "sliding" else 1
        return overlap * Path(text).stat().st_size / 3

    return Cost(protocol["batch_size"] * protocol["seqlen"], tokens, numbers=2)


def export_mb(size: Size, stored: Iterable[str]) -> float:
    """Memory without the base, where the weights on disk have these dtypes."""
    return 2.0 * size.parameters * max(size.width, *(WIDTHS[dtype] for dtype in stored)) / 1e6


def compress(calibration: Settings | None) -> Cost:
    """Each layer is run twice over the calibration windows; what a solver does is allowed as much again."""
    if calibration is None:
        return Cost(0, lambda: 0.0)
    tokens = calibration["windows"] * calibration["seqlen"]
    return Cost(calibration["seqlen"], lambda: float(tokens), numbers=2, passes=4)


def cost(timing: Settings) -> Cost:
    """Both models in turns; a token that is written alone takes the time of ten that are read together."""
    tokens = (timing["rounds"] + 2) * 2 * (timing["prefill"] + 10 * timing["decode"])
    return Cost(timing["prefill"], lambda: float(tokens), numbers=2, models=2)


def capability(batch_size: int, plan: str) -> Cost:
    """All requests of the tasks, three characters per token; kept: logits and their logarithms."""
    tasks = json.loads(Path(plan).read_text(encoding="utf-8"))["tasks"].values()
    longest = math.ceil(max(task["longest"] for task in tasks) / 3)  # longer ones are cut
    total = sum(task["characters"] / 3 + task["generated"] for task in tasks)
    return Cost(batch_size * min(max(PROMPT, longest), REQUEST), lambda: total, numbers=4)


def circuits(batch_size: int, pairs: str, passes: float) -> Cost:
    """Runs of both prompts of every pair; kept per token: what each source writes, and gradients at each destination.

    Args:
        batch_size: pairs.
        pairs: their file.
        passes: forward passes over all of them.
    """
    found = [json.loads(line) for line in Path(pairs).read_text(encoding="utf-8").splitlines()]
    longest = max(len(row["clean_ids"]) for row in found if "clean_ids" in row)
    return Cost(batch_size * longest, lambda: len(found) * longest, numbers=60, passes=math.ceil(passes))


def encoder_mb(folder: str, models: int = 1) -> float:
    """Memory of an encoder with its activations and gradients, and of further ones that are only run."""
    weights = _bytes(folder, "*.safetensors") / 1e6
    return 500 + 5 * weights + 1.2 * (models - 1) * weights


def encoder_minutes(folder: str, texts: Iterable[str], passes: float, speed: float) -> int:
    """Time to run an encoder over texts, at three bytes per token and so many operations per second.

    Args:
        folder: of the encoder.
        texts: folders that hold JSONL.
        passes: forward passes; a backward pass counts as two.
        speed: operations per second.
    """
    tokens = sum(_bytes(path, "*.jsonl") for path in texts) / 3
    return 15 + math.ceil(2 * passes * _bytes(folder, "*.safetensors") / 4 * tokens / speed / 60)


def _bytes(folder: str, pattern: str) -> int:
    return sum(path.stat().st_size for path in Path(folder).glob(pattern))


LENS = 20
"""Neurons that the logit lens looks at; at worst of as many layers."""


def lens_mb(hidden: int, vocabulary: int, layers: int, neurons: int) -> float:
    """Memory of the output projections that the logit lens reads and of the unembedding: twice four bytes a number."""
    return 1.2 * 8 * hidden * (vocabulary + min(LENS, layers) * neurons) / 1e6


def rows(path: str) -> int:
    """Lines of a JSONL file."""
    with open(path, "rb") as file:
        return sum(1 for _ in file)


def rows_mb(paths: Iterable[str], shards: int = 1) -> float:
    """Memory of the rows of a shard of some files; folders hold none."""
    files = [Path(path) for path in paths if not Path(path).is_dir()]
    return 6 * sum(path.stat().st_size for path in files) / shards / 1e6


def rows_minutes(paths: Iterable[str], seconds: float, shards: int = 1) -> int:
    """Time of a job that spends so many seconds on each row of a shard."""
    number = sum(rows(path) for path in paths if not Path(path).is_dir()) / shards
    return 20 + int(number * seconds / 60)
