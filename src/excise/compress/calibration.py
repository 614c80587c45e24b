"""Calibration windows: documents joined and tokenised once, cut into windows of one length (Wanda, SparseGPT)."""

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from excise.errors import ExciseError


def windows(ids: Sequence[int], *, seqlen: int, count: int, seed: int | None = None) -> Tensor:
    """Windows ``[count, seqlen]`` that do not overlap: the first ones, or with a seed as many drawn at random.

    Raises:
        ExciseError: the text is too short, or a number is out of range.
    """
    if seqlen < 2 or count < 1:
        raise ExciseError(f"--seqlen {seqlen}, --windows {count}: must be at least 2 and at least 1")
    there = len(ids) // seqlen
    if there < count:
        raise ExciseError(
            f"--windows {count}: the calibration text has {len(ids)} tokens, {there} windows of {seqlen}; give a "
            "longer text, or ask for fewer or shorter windows"
        )
    cut = torch.tensor(ids[: there * seqlen]).reshape(there, seqlen)
    if seed is None:
        return cut[:count]
    return cut[torch.from_numpy(np.random.default_rng(seed).permutation(there)[:count])]


def sha256(chosen: Tensor) -> str:
    """SHA-256 over the token ids as int32, in order."""
    return hashlib.sha256(chosen.to(torch.int32).contiguous().numpy().tobytes()).hexdigest()
