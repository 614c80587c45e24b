"""Options that several stages have."""

import argparse
from collections.abc import Callable
from pathlib import Path


def add_model_arguments(
    parser: argparse.ArgumentParser, *, model: str = "model folder", required: bool = True, spread: bool = True
) -> None:
    """Which model, in which numbers, and what it runs on.

    Args:
        parser: of the stage.
        model: help text of ``--model``.
        required: whether the stage does nothing without a model.
        spread: whether the stage can run a model that lies on several devices.
    """
    devices = "auto, cpu, cuda, mps" + (", or spread: over all accelerators, then main memory" if spread else "")
    parser.add_argument("--model", type=Path, required=required, help=model)
    parser.add_argument("--dtype", default="float32", help="float32, bfloat16 or float64 (default float32)")
    parser.add_argument("--device", default="auto", help=f"{devices} (default auto)")
    parser.add_argument("--threads", type=int, help="CPU threads of torch (default: torch's own choice)")


def set_threads(threads: int | None) -> int:
    """Let torch use so many CPU threads, or as many as it chooses; returns how many."""
    import torch

    if threads is not None:
        torch.set_num_threads(threads)
    return torch.get_num_threads()


def unescaped(separator: str) -> str:
    """A separator as it is typed, with its line ends and tabs."""
    return separator.replace("\\n", "\n").replace("\\t", "\t")


def add_treatment_arguments(
    parser: argparse.ArgumentParser, *, scale: Callable[[str], float | str], scale_help: str
) -> None:
    """What becomes of selected units.

    Args:
        parser: of the stage.
        scale: reads ``--scale``.
        scale_help: rest of its help text.
    """
    parser.add_argument("--scale", type=scale, help=f"what the activation of a selected unit is scaled by{scale_help}")
    parser.add_argument("--ablation", help="what it is scaled about: zero, or mean (default: mean with --mean)")
    parser.add_argument("--mean", type=Path, help="scores of method mean-activation, where the ablation is mean")
