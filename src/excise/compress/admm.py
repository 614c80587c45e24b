"""ADMM-Grad: alternating directions with one fixed penalty and few steps (Boza 2024).

ALPS's problem in less time: one inverse for all steps, a penalty that does not grow, no conjugate gradients. In the
first steps the mask is chosen anew each time and fills up, as Zhu and Gupta's cubic schedule has it; in the rest only
the weights move. (The author's code follows the schedule within rows and N:M alone, not over whole matrices.)
"""

import torch
from torch import Tensor

from excise.compress.least_squares import inverse_shifted
from excise.compress.masks import lowest, pruned
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
            filled = 1 - (1 - (step + 1) / CHOOSING) ** 3
            kept = ~_part(target.T.square(), pattern, protect, filled).T
        masked = target * kept
        dual = target - masked
        free = inverse @ (goal + PENALTY * (masked - dual))
    return ((free + dual) * kept / root[:, None]).T


def _part(score: Tensor, pattern: Pattern, protect: Tensor | None, share: float) -> Tensor:
    """The lowest share of what the pattern prunes; bool, like ``score``."""
    whole = pruned(score, pattern, protect)
    candidates = score.masked_fill(~whole, torch.inf).reshape(1, -1)
    return lowest(candidates, int(share * int(whole.sum()))).reshape(score.shape)
