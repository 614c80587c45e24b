"""One installer and one lock behind every environment: pip, conda, Docker, Apptainer."""

import os
import re
import subprocess
import sys

import pytest
import yaml

from tests.conftest import REPOSITORY

ENVS = REPOSITORY / "envs"
CONTAINERS = ("Dockerfile", "excise.def")
TORCH = re.search(r"^torch==(\S+)$", (ENVS / "torch.txt").read_text(), re.MULTILINE)[1]


@pytest.mark.parametrize("name", CONTAINERS)
def test_containers_name_no_version_but_pythons(name):
    text = (ENVS / name).read_text()
    python, *_ = yaml.safe_load((ENVS / "excise.yaml").read_text())["dependencies"]
    assert re.search(rf"^from:? {python.replace('=', ':')}-slim$", text, re.MULTILINE | re.IGNORECASE)
    assert "==" not in text
    assert "bash envs/install.sh /opt/environment" in text
    assert re.search(r"ACCELERATOR=cpu$", text, re.MULTILINE)


@pytest.mark.parametrize(
    ("accelerator", "driver", "installed"),
    [
        (None, False, f"torch=={TORCH}+cpu"),
        (None, True, f"torch=={TORCH}"),
        ("cuda", False, f"torch=={TORCH}"),
        ("cpu", True, f"torch=={TORCH}+cpu"),
    ],
)
@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere there is one build of torch")
def test_the_build_of_torch_is_the_machines_or_the_one_asked_for(tmp_path, accelerator, driver, installed):
    """The installer, with an environment whose Python only notes what it is asked to do."""
    python = tmp_path / "environment/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/sh\necho "$@" >> "$0.log"\n[ "$1" != -c ]\n')
    python.chmod(0o755)
    (tmp_path / "bin").mkdir()
    for tool in ("bash", "uname", "touch"):
        (tmp_path / "bin" / tool).symlink_to(f"/bin/{tool}")
    if driver:
        (tmp_path / "bin/nvidia-smi").symlink_to("/bin/true")
    environment = {key: value for key, value in os.environ.items() if key != "ACCELERATOR"}
    environment |= {"PATH": str(tmp_path / "bin"), "PYTHON": sys.executable}
    environment |= {"ACCELERATOR": accelerator} if accelerator else {}
    subprocess.run(
        ["/bin/bash", "envs/install.sh", tmp_path / "environment"], cwd=REPOSITORY, env=environment, check=True
    )
    asked = python.with_name("python.log").read_text()
    assert re.findall(r"torch==\S+", asked.partition("--require-hashes")[0].rpartition("torch.__version__")[2]) == [
        installed
    ]
