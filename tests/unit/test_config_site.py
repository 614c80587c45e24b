"""site.yaml: what a cluster wants of its users is checked like an experiment's file."""

import re

import pytest

from excise.config.site import Limits, read_site
from excise.errors import ExciseError
from tests.conftest import REPOSITORY


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("all:\n  account: mine\n", "all: unknown key 'account'. Did you mean 'slurm_account'?"),
        ("cpu: {partition: short}\n", "cpu: unknown key 'partition'. Did you mean 'slurm_partition'?"),
        ("cpu: {gres: 'gpu:1'}\n", "cpu: unknown key 'gres'"),
        ("slurm_account: mine\n", "unknown key 'slurm_account'"),
        ("all:\n\tqos: high\n", "this line has a tab"),
        ("all: {qos: 3}\n", "all.qos: 3 is not text or null"),
        ("all: [qos]\n", "all: ['qos'] is not a block of keys"),
        ("mine\n", "'mine' is not a block of keys"),
        ("gpu_memory_mb: 80 GB\n", "gpu_memory_mb: '80 GB' is not a number"),
        ("gpu_memory_mb: 0\n", "0 is less than or equal to the minimum of 0"),
        ("all: {slurm_extra: --mail-type=FAIL --account=mine}\n", "--account has a key of its own: slurm_account"),
        ("gpu: {gres: 'gpu:a100:two'}\n", "gpu.gres: 'gpu:a100:two' does not match"),
        (
            "partitions: {short: {runtime: 4h}}\n",
            "partitions.short: unknown key 'runtime'. Did you mean 'max_runtime'?",
        ),
        ("all: {qos: a}\nall: {qos: b}\n", "all is given in line 1 and again in line 2"),
    ],
)
def test_mistakes_are_named(tmp_path, text, message):
    path = tmp_path / "site.yaml"
    path.write_text(text)
    with pytest.raises(ExciseError) as error:
        read_site(path)
    assert message in str(error.value)
    assert str(path) in str(error.value)


@pytest.mark.parametrize("text", ["", "# nothing\n", "all:\ncpu:\n"])
def test_a_file_that_says_nothing_is_accepted(tmp_path, text):
    path = tmp_path / "site.yaml"
    path.write_text(text)
    assert read_site(path).resources("gpu") == {}


def test_a_kind_of_job_gets_its_own_words_before_those_of_all(tmp_path):
    path = tmp_path / "site.yaml"
    path.write_text("all: {slurm_account: 12345, qos: low}\ngpu: {qos: high, slurm_partition: gpu, gpu_model: a100}\n")
    site = read_site(path)
    assert site.resources("cpu") == {"slurm_account": "12345", "qos": "low"}
    gpu = {"slurm_account": "12345", "qos": "high", "slurm_partition": "gpu", "gpu_model": "a100"}
    assert site.resources("gpu") == gpu


@pytest.mark.parametrize(
    ("gres", "needed", "asked"),
    [
        ("gpu", 1, "gpu:1"),
        ("gpu", 3, "gpu:3"),
        ("gpu:a100", 2, "gpu:a100:2"),
        ("gpu:a100:1", 2, "gpu:a100:2"),
        ("gpu:a100:4", 2, "gpu:a100:4"),
        ("gpu:2", 1, "gpu:2"),
    ],
)
def test_the_number_of_gpus_goes_into_the_gres(tmp_path, gres, needed, asked):
    path = tmp_path / "site.yaml"
    path.write_text(f"gpu: {{gres: '{gres}'}}\n")
    assert read_site(path).gpu.gres_for(needed) == asked


def test_the_shipped_example_is_right_with_every_line(tmp_path):
    text = (REPOSITORY / "profiles/slurm/site.example.yaml").read_text()
    path = tmp_path / "site.yaml"
    path.write_text(re.sub(r"^(  )?# (?=(  )?[a-z_]+:)", r"\1", text, flags=re.MULTILINE))
    site = read_site(path)
    assert site.gpu.gres == "gpu:a100:1"
    assert site.partitions["gpu"].max_gpu == 4


def test_the_table_has_the_limits_that_the_plugin_knows():
    from dataclasses import fields

    from snakemake_executor_plugin_slurm.partitions import PartitionLimits

    assert set(Limits.model_fields) == {field.name for field in fields(PartitionLimits)}
