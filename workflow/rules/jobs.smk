# What a job asks of the machine that runs it. Locally these numbers decide how many jobs run side by side; on Slurm
# they are limits, and a job that breaks one runs again with twice, then three times as much.
#
# memory (MB)    attempt x (base + 1.2 x weights + numbers x tokens at once x layers x neurons per layer x bytes)
#                base: Python and torch 500, or 1000 in its CUDA build (used 800; not measured: on a GPU); the
#                two Snakemakes that wrap a Slurm job 300; numbers: how many the job keeps per token and MLP neuron
#                (attribution 8: all activations, for the backward pass; perplexity 2; capability 4: logits and
#                their logarithms; generation 0.5: the cache of keys and values). The demo's LRP on C4 used 1.73 GB,
#                with those Snakemakes 2.03, of the 2.20 GB that this gives.
#                A job that holds rows: attempt x (its own need + 6 x its input files / shards), since Python's objects
#                take 5.2 times what the JSON does.
# runtime (min)  attempt x (10 + tokens x parameters x 2 x passes / speed); a backward pass counts as two forward passes.
#                A job that scores rows: attempt x (20 + rows x 0.3 s / shards).
# GPUs           none where the configuration says device: cpu; with device: spread as many of one node as the memory
#                without the base needs; else one
#
# Other numbers for one rule, without editing: --set-resources attribute:mem_mb=64000 attribute:runtime=240

import math
from importlib.metadata import version

from workflow.scripts import slurm_guard

BASE = 800 if version("torch").endswith("+cpu") else 1300
WIDTHS = {"float32": 4, "bfloat16": 2, "float64": 8}
CPU_SPEED = 5e9  # FLOP/s of a thread; the demo reached 2e10 to 4e10 on a shared core; a limit is not an estimate
GPU_SPEED = 1e13  # FLOP/s; a thirtieth of an A100's peak in bfloat16; not measured
PROMPT = 64  # tokens allowed for a prompt
SAMPLE = 512  # tokens allowed for a sample of a ready-made file
REQUEST = 2048  # most tokens allowed for a request of a capability task
SCORING = 0.3  # seconds a row; a BERT base, as Detoxify's, took 0.07 on one thread

slurm_guard.install(workflow)

ON_GPU = config["device"] != "cpu"


def site():
    """What the cluster wants of every job: profiles/slurm/site.yaml, or the file that EXCISE_SLURM_SITE names."""
    path = Path(
        os.environ.get("EXCISE_SLURM_SITE")
        or Path(workflow.basedir) / "profiles/slurm/site.yaml"
    )
    settings = {"all": {}, "cpu": {}, "gpu": {}, "gpu_memory_mb": 80000}
    if path.is_file():
        given = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        if unknown := given.keys() - settings.keys() - {"partitions"}:
            raise WorkflowError(
                f"{path}: unknown key {sorted(unknown)[0]!r}. Allowed: all, cpu, gpu, gpu_memory_mb, partitions."
            )
        settings |= {key: value for key, value in given.items() if value is not None}
        if given.get("partitions"):
            os.environ.setdefault("SNAKEMAKE_SLURM_PARTITIONS", str(path))
    return settings


SITE = site()


def rows(path):
    """Lines of a JSONL file."""
    with open(path, "rb") as file:
        return sum(1 for _ in file)


def model_facts(wildcards, input):
    """Layers, neurons and parameters of the model, and bytes per number."""
    with open(input.facts, encoding="utf-8") as file:
        facts = yaml.safe_load(file)
    return facts, WIDTHS[config["models"][wildcards.model]["dtype"]]


def cpu_job(mem_mb=1500, runtime=20):
    """Resources of a job without a model."""
    return {
        "mem_mb": lambda wildcards, attempt: attempt * mem_mb,
        "runtime": lambda wildcards, attempt: attempt * runtime,
        **SITE["all"],
        **SITE["cpu"],
    }


def rows_job(mem_mb=1000, seconds=0, shards=1):
    """Resources of a job that holds a shard of the rows of its input files, and spends so many seconds on each."""

    def files(input):
        return [path for path in input if not os.path.isdir(path)]

    def rows_mb(wildcards, input, attempt):
        size = sum(map(os.path.getsize, files(input))) / shards
        return attempt * int(mem_mb + 6 * size / 1e6)

    def runtime(wildcards, input, attempt):
        number = sum(map(rows, files(input))) / shards
        return attempt * (20 + int(number * seconds / 60))

    return {"mem_mb": rows_mb, "runtime": runtime, **SITE["all"], **SITE["cpu"]}


def scoring_job(section):
    """Resources of a job that scores a shard of what a section of the configuration generates."""
    return rows_job(mem_mb=2000, seconds=SCORING, shards=config[section]["shards"])


def model_job(at_once, tokens=lambda wildcards, input: 0, numbers=0.5, passes=1):
    """Resources of a job that runs the model.

    at_once(wildcards): tokens that are in memory together; tokens(wildcards, input): tokens in all.
    """

    def model_mb(wildcards, input):
        facts, width = model_facts(wildcards, input)
        per_token = numbers * facts["layers"] * facts["neurons_per_layer"] * width
        return (
            1.2 * facts["parameters"] * width + at_once(wildcards) * per_token
        ) / 1e6

    def mem_mb(wildcards, input, attempt):
        return attempt * int(BASE + model_mb(wildcards, input))

    def runtime(wildcards, input, attempt, threads):
        facts, _ = model_facts(wildcards, input)
        speed = GPU_SPEED if ON_GPU else CPU_SPEED * threads
        work = 2 * passes * facts["parameters"] * tokens(wildcards, input)
        return attempt * (10 + math.ceil(work / speed / 60))

    def gpu(wildcards, input):
        if config["device"] != "spread":
            return 1
        return math.ceil(model_mb(wildcards, input) / SITE["gpu_memory_mb"])

    asked = {"mem_mb": mem_mb, "runtime": runtime, **SITE["all"]}
    if not ON_GPU:
        return asked | SITE["cpu"]
    asked["nodes"] = 1  # --gpus alone may be served from several
    if "gres" not in SITE["gpu"]:  # Slurm takes one of the two
        asked["gpu"] = gpu
    return asked | SITE["gpu"]


def weights_job():
    """Resources of a job that holds the weights and runs nothing."""

    def mem_mb(wildcards, input, attempt):
        facts, width = model_facts(wildcards, input)
        return attempt * int(BASE + 2.4 * facts["parameters"] * width / 1e6)

    return cpu_job() | {"mem_mb": mem_mb, **SITE["all"], **SITE["cpu"]}


def sample_tokens(wildcards):
    """Tokens of the longest sample of a reference set."""
    reference = config["references"][wildcards.corpus]
    if reference["kind"] == "windows":
        return reference["seqlen"]
    return (
        SAMPLE
        if reference["kind"] == "file"
        else PROMPT + config["generations"]["max_new_tokens"]
    )


def batch_tokens(wildcards):
    """Tokens of one batch of attribution."""
    return config["attribution"]["batch_size"] * sample_tokens(wildcards)


def shard_tokens(wildcards, input):
    """Tokens of one shard of a reference set."""
    reference = config["references"][wildcards.corpus]
    samples = (
        reference["windows"] if reference["kind"] == "windows" else reference["count"]
    )
    return sample_tokens(wildcards) * math.ceil(
        samples / config["attribution"]["shards"]
    )


def generated(section):
    """Tokens at once, and tokens in all, of generation as a section of the configuration wants it."""
    settings = SECTIONS[section]
    length = PROMPT + settings["max_new_tokens"]

    def tokens(wildcards, input):
        if "prompts" not in input.keys():
            return rows(input.generations) * length
        draws = SECTIONS[
            part_of(wildcards.variant) if section == "evaluation" else section
        ]["num_generations"]
        return rows(input.prompts) * length * draws / settings["shards"]

    return {
        "at_once": lambda wildcards: settings["batch_size"] * length,
        "tokens": tokens,
    }


def perplexity_tokens(wildcards, input):
    """Tokens of the perplexity text: its windows, or all of it at three bytes a token."""
    protocol = SECTIONS[part_of(wildcards.variant)]["perplexity"]
    if protocol["windows"] is not None:
        return protocol["windows"] * protocol["seqlen"]
    overlap = (
        protocol["seqlen"] / protocol["stride"]
        if protocol["protocol"] == "sliding"
        else 1
    )
    return overlap * os.path.getsize(input.text) / 3


def window_tokens(wildcards):
    """Tokens of one batch of perplexity windows."""
    protocol = SECTIONS[part_of(wildcards.variant)]["perplexity"]
    return protocol["batch_size"] * protocol["seqlen"]


def planned_tasks():
    """How much work each task of the capability is; before they are fetched, Snakemake says that it is not known."""
    with open(f"{TASKS}/plan.json", encoding="utf-8") as file:
        return yaml.safe_load(file)["tasks"].values()


def request_tokens(wildcards):
    """Tokens of one batch of the longest requests, three characters a token; longer ones are cut."""
    longest = max(task["longest"] for task in planned_tasks()) / 3
    tokens = min(max(PROMPT, math.ceil(longest)), REQUEST)
    return config["evaluation"]["capability"]["batch_size"] * tokens


def task_tokens(wildcards, input):
    """Tokens of all requests, and of what is generated."""
    return sum(task["characters"] / 3 + task["generated"] for task in planned_tasks())
