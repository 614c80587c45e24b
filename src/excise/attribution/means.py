"""Scores that are means over samples, with nothing to compute."""

from pathlib import Path

from excise.artefacts import Array
from excise.attribution import Arrays
from excise.models.units import Axis


def mean_activation(means: Arrays, model_folder: Path, units: Axis) -> Array:  # noqa: ARG001
    """Score = mean over samples of what was summed of the activations."""
    return means["activation"]


def mean_relevance(means: Arrays, model_folder: Path, units: Axis) -> Array:  # noqa: ARG001
    """Score = mean relevance over samples (SparC3, eq. 1)."""
    return means["relevance"]
