# What a job asks of the machine that runs it: excise.stages.costs has the formulas. Locally these numbers decide how many
# jobs run side by side; on Slurm they are limits, and a job that breaks one runs again with twice, then three times as much.
#
# GPUs: none where the configuration says device: cpu; with device: spread as many of one node as the memory without the
# base needs; else one.
#
# Other numbers for one rule, without editing: --set-resources attribute:mem_mb=64000 attribute:runtime=240

import functools
import json
import math
import shutil
import tempfile
from importlib.metadata import version

from snakemake_executor_plugin_excise_slurm import takeover

from excise import warm
from excise.config.site import Site, read_site
from excise.stages import costs

CPU_BUILD = version("torch").endswith("+cpu")
BASE = 650 if CPU_BUILD else 1150  # MB

ON_GPU = config["device"] != "cpu"

takeover.install(
    workflow,
    GIVEN,
    (
        [
            "Jobs ask for GPUs, and this torch cannot use them: docs/slurm.md, Environment."
        ]
        if ON_GPU and CPU_BUILD
        else []
    ),
)


def site():
    """What the cluster wants of every job: profiles/slurm/site.yaml, or the file that EXCISE_SLURM_SITE names."""
    path = Path(
        os.environ.get("EXCISE_SLURM_SITE")
        or Path(workflow.basedir) / "profiles/slurm/site.yaml"
    )
    if workflow.remote_exec or not path.is_file():
        return Site()
    try:
        found = read_site(path)
    except ExciseError as error:
        raise WorkflowError(str(error)) from None
    if found.partitions:
        os.environ.setdefault("SNAKEMAKE_SLURM_PARTITIONS", str(path))
    return found


# On the processors of one machine, stages that read a model are forked from a process that has torch imported: a job starts
# in a tenth of a second. Not where torch may use a GPU, which a fork may not share (device: auto on a CPU build cannot);
# nor where jobs have an environment of their own.
onstart:
    if (
        workflow.local_exec
        and (CPU_BUILD or not ON_GPU)
        and not workflow.deployment_settings.deployment_method
        and sys.platform == "linux"
    ):
        folder = tempfile.mkdtemp(prefix="excise-")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        os.environ[warm.VARIABLE] = f"{os.getpid()}:{folder}"


SITE = site()
CPU_SITE, GPU_SITE = SITE.resources("cpu"), SITE.resources("gpu")


def cpu_job(mem_mb=1500, runtime=20):
    """Resources of a job without a model."""
    return {
        "mem_mb": lambda wildcards, attempt: attempt * mem_mb,
        "runtime": lambda wildcards, attempt: attempt * runtime,
        **CPU_SITE,
    }


def rows_job(mem_mb=1000, seconds=0, shards=1):
    """Resources of a job that holds a shard of the rows of its input files, and spends so many seconds on each."""

    def rows_mb(wildcards, input, attempt):
        return attempt * int(mem_mb + costs.rows_mb(input, shards))

    def runtime(wildcards, input, attempt):
        return attempt * costs.rows_minutes(input, seconds, shards)

    return cpu_job() | {"mem_mb": rows_mb, "runtime": runtime}


def scoring_job(section):
    """Resources of a job that scores a shard of what a section of the configuration generates."""
    return rows_job(
        mem_mb=2000, seconds=costs.SCORING, shards=config[section]["shards"]
    )


@functools.cache
def model_info(path, changed):
    """What excise inspect found of a model; the time of the last change makes a new file a new question."""
    with open(path, encoding="utf-8") as file:
        return json.load(file)


def size_of(wildcards, input):
    """How large a job's model is."""
    info = model_info(input.facts, os.stat(input.facts).st_mtime_ns)
    width = costs.WIDTHS[config["models"][wildcards.model]["dtype"]]
    return costs.Size(
        info["parameters"], info["layers"], info["neurons_per_layer"], width
    )


def on_device(asked, gpus):
    """Resources of a job that runs on the CPU, or on gpus(wildcards, input) GPUs of one node."""
    if not ON_GPU:
        return asked | CPU_SITE
    asked = asked | {"nodes": 1}  # --gpus alone may be served from several
    if SITE.gpu.gres is None:
        return asked | {"gpu": gpus} | GPU_SITE
    # Slurm takes one of the two, so that the number goes into the gres.
    gres = lambda wildcards, input: SITE.gpu.gres_for(gpus(wildcards, input))
    return asked | GPU_SITE | {"gres": gres}


def model_job(cost):
    """Resources of a job that runs the model, where cost(wildcards, input) says what it does with it."""

    def mem_mb(wildcards, input, attempt):
        needed = cost(wildcards, input).mb(size_of(wildcards, input))
        return attempt * int(BASE + needed)

    def runtime(wildcards, input, attempt, threads):
        speed = costs.GPU_SPEED if ON_GPU else costs.CPU_SPEED * threads
        return attempt * cost(wildcards, input).minutes(
            size_of(wildcards, input), speed
        )

    def gpu(wildcards, input):
        if config["device"] != "spread":
            return 1
        needed = cost(wildcards, input).mb(size_of(wildcards, input))
        return math.ceil(needed / SITE.gpu_memory_mb)

    return on_device({"mem_mb": mem_mb, "runtime": runtime}, gpu)


def lens_job():
    """Resources of a job that looks at some neurons and the unembedding."""

    def mem_mb(wildcards, input, attempt):
        info = model_info(input.facts, os.stat(input.facts).st_mtime_ns)
        keys = ("hidden_size", "vocabulary", "layers", "neurons_per_layer")
        return attempt * int(BASE + costs.lens_mb(*(info[key] for key in keys)))

    return cpu_job() | {"mem_mb": mem_mb}


def export_job():
    """Resources of a job that changes the weights on disk and runs nothing."""

    def mem_mb(wildcards, input, attempt):
        info = model_info(input.facts, os.stat(input.facts).st_mtime_ns)
        size = size_of(wildcards, input)
        return attempt * int(BASE + costs.export_mb(size, info["dtype_on_disk"]))

    return cpu_job() | {"mem_mb": mem_mb}
