#!/usr/bin/env bash
# Snakemake runs this once in the environment made from excise.yaml, with the clone as working directory.
set -euo pipefail
bash envs/install.sh "$CONDA_PREFIX"
