"""Slurm's commands made up, for the tests of the executor."""

import os

import pytest


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """Write Slurm's commands as shell scripts, found before any others."""
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")

    def write(**scripts):
        for name, script in scripts.items():
            (tmp_path / name).write_text(f"#!/bin/sh\ncd {tmp_path}\n{script}\n")
            (tmp_path / name).chmod(0o755)
        return tmp_path

    return write
