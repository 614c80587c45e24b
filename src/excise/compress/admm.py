"""ADMM-Grad: alternating directions with one fixed penalty and few steps (Boza 2024).

ALPS's problem in less time: one inverse for all steps, a penalty that does not grow, no conjugate gradients. The mask
is chosen anew in the first steps; in the rest only the weights move. The paper lets the mask fill up step by step; its
code does not over whole matrices, and on tokens that calibration had not seen there was nothing to gain by it.
"""

import torch
from torch import Tensor

from excise.compress.least_squares import inverse_shifted
from excise.compress.masks import pruned
from excise.compress.patterns import Pattern

DAMPING, PENALTY = 0.1, 1.0
"""Damping is a share of each input's own mean square, not of the mean over inputs as in SparseGPT and ALPS."""

STEPS, CHOOSING = 20, 15
"""Steps in all, and those that choose the mask."""


def solve(weight: Tensor, gram: Tensor, pattern: Pattern, protect: Tensor | None = None) -> Tensor:
    """New weights ``[outputs, inputs]`` that keep the pattern.

    Args:
        weight: ``[outputs, inputs]``, float32 or better.
        gram: ``[inputs, inputs]``, float64.
        pattern: a share of each row or matrix, or N:M.
        protect: bool, like the weight: never pruned.

    Raises:
        ExciseError: too much is protected, or the Gram matrix is not positive definite.
    """
    root = gram.diagonal().sqrt()
    root = torch.where(root == 0, 1, root)
    unit = gram / root / root[:, None]
    unit.diagonal().add_(DAMPING)
    unit, root = unit.to(weight.dtype), root.to(weight.dtype)
    free = (weight * root).T
    goal = unit @ free
    dual = torch.zeros_like(free)
    inverse = inverse_shifted(unit, PENALTY)
    for step in range(STEPS):
        target = free + dual
        if step < CHOOSING:
            kept = ~pruned(target.T.square(), pattern, protect).T
        masked = target * kept
        dual = target - masked
        free = inverse @ (goal + PENALTY * (masked - dual))
    return ((free + dual) * kept / root[:, None]).T
