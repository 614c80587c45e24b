"""What a cluster wants of its users: profiles/slurm/site.yaml, checked like an experiment's file."""

import re
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import AfterValidator, Field, ValidationError

from excise.config.reading import check_file
from excise.config.section import Section
from excise.config.values import Text
from excise.config.wording import sentences
from excise.errors import ExciseError

OWN_KEYS = {
    "-A": "slurm_account",
    "--account": "slurm_account",
    "-p": "slurm_partition",
    "--partition": "slurm_partition",
    "-C": "constraint",
    "--constraint": "constraint",
    "--qos": "qos",
    "-q": "qos",
    "--gres": "gres",
    "--gpus": "gpu_model",
}
"""Options of sbatch that have a key of their own."""


def _no_option_with_a_key(value: str) -> str:
    for word in value.split():
        if (option := word.partition("=")[0]) in OWN_KEYS:
            raise ValueError(f"{option} has a key of its own: {OWN_KEYS[option]}")
    return value


class Place(Section):
    """What jobs tell sbatch."""

    slurm_account: Text | int | None = Field(None, description="Where the site bills.")
    slurm_partition: Text | int | None = Field(None, description="Partition, or several divided by commas.")
    qos: Text | None = Field(None, description="Quality of service.")
    constraint: Text | None = Field(None, description="Features that the site gave its nodes.")
    slurm_extra: Annotated[str, AfterValidator(_no_option_with_a_key)] | None = Field(
        None, description="Anything else that sbatch understands."
    )
    cpus_per_task: int | None = Field(None, description="Instead of the job's threads; -1 asks for none.")


class GpuPlace(Place):
    """What jobs with a GPU tell sbatch."""

    gpu_model: Text | None = Field(None, description="Asks --gpus=MODEL:N.")
    gres: Annotated[str, Field(pattern=r"^[A-Za-z0-9_]+(:[A-Za-z0-9_.]+)?(:[0-9]+)?$")] | None = Field(
        None, description="Where the site wants --gres instead of --gpus: gpu:a100:1."
    )
    cpus_per_gpu: int | None = Field(None, description="Instead of the job's threads.")

    def gres_for(self, gpus: int) -> str:
        """The gres with as many GPUs as a job needs, or as many as the site names, whichever is more."""
        kind, _, number = (self.gres or "gpu").rpartition(":")
        if not re.fullmatch("[0-9]+", number):
            kind, number = self.gres or "gpu", "1"
        return f"{kind}:{max(gpus, int(number))}"


class Limits(Section):
    """What a partition allows; snakemake-executor-plugin-slurm reads this table."""

    max_runtime: int | str | None = Field(None, description="Minutes, or 4h, 3d.")
    max_mem_mb: int | None = Field(None, gt=0, description="Memory of a job.")
    max_mem_mb_per_cpu: int | None = Field(None, gt=0, description="Memory per CPU.")
    max_cpus_per_task: int | None = Field(None, gt=0, description="CPUs of a task.")
    max_threads: int | None = Field(None, gt=0, description="Threads of a job.")
    max_nodes: int | None = Field(None, gt=0, description="Nodes of a job.")
    max_tasks: int | None = Field(None, gt=0, description="Tasks of a job.")
    max_tasks_per_node: int | None = Field(None, gt=0, description="Tasks of a node.")
    max_gpu: int | None = Field(None, ge=0, description="GPUs of a job; left out means none.")
    available_gpu_models: list[str] | None = Field(None, description="Models of its GPUs.")
    max_cpus_per_gpu: int | None = Field(None, gt=0, description="CPUs per GPU.")
    supports_mpi: bool | None = Field(None, description="Whether MPI jobs may run.")
    max_mpi_tasks: int | None = Field(None, gt=0, description="Tasks of an MPI job.")
    available_constraints: list[str] | None = Field(None, description="Features of its nodes.")


class Site(Section):
    """What a cluster wants of its users."""

    all: Place = Field(default_factory=Place, description="Every job.")
    cpu: Place = Field(default_factory=Place, description="Jobs without a GPU.")
    gpu: GpuPlace = Field(default_factory=GpuPlace, description="Jobs with a GPU.")
    gpu_memory_mb: float = Field(80000, gt=0, description="Of one GPU; a model that needs more gets several.")
    partitions: dict[str, Limits] | None = Field(None, description="Partitions to choose the smallest fit from.")

    def resources(self, kind: str) -> dict[str, Any]:
        """Snakemake's resources of jobs of a kind, ``cpu`` or ``gpu``."""
        given = self.all.model_dump(exclude_none=True) | getattr(self, kind).model_dump(exclude_none=True)
        texts = ("slurm_account", "slurm_partition")  # some are all digits
        return {key: str(value) if key in texts else value for key, value in given.items()}


def read_site(path: Path) -> Site:
    """Read and check a site's file; a section without keys is one that says nothing.

    Raises:
        ExciseError: it is not YAML, a key is unknown or given twice, or a value has the wrong type.
    """
    check_file(path)
    given = yaml.safe_load(path.read_bytes())
    if given is None:
        given = {}
    if not isinstance(given, dict):
        raise ExciseError(f"{path}: {given!r} is not a block of keys; profiles/slurm/site.example.yaml shows them")
    try:
        return Site.model_validate({key: value for key, value in given.items() if value is not None})
    except ValidationError as error:
        raise ExciseError("\n".join(f"{path}: {sentence}" for sentence in sentences(error, Site))) from error
