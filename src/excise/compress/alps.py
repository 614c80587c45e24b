"""ALPS: mask by the alternating direction method of multipliers, then conjugate gradients (Meng et al. 2024).

It solves for the pruned weights that change the map's outputs least on the calibration tokens. Two copies of the
weights, one free (B) and one on the mask (D), are pulled together by a penalty that grows until the mask settles.
"""

import torch
from torch import Tensor

from excise.compress.least_squares import descend, inverse_shifted, scaled
from excise.compress.masks import pruned
from excise.compress.patterns import Pattern

SMALLEST, PENALTY, LARGEST = 1e-6, 0.1, 1e6
STEPS, EVERY, AT_LEAST = 300, 3, 30
SETTLED = 3e-4
"""Share of the mask that may still change when the method stops after ``AT_LEAST`` steps."""


def solve(weight: Tensor, gram: Tensor, pattern: Pattern, protect: Tensor | None = None) -> Tensor:
    """New weights ``[outputs, inputs]`` that keep the pattern.

    The penalty grows by 1.3, 1.2 or 1.1 every three steps, the faster the more the mask still moves; as long as the
    very first mask has not moved, it is divided by five instead and the method begins again.

    Args:
        weight: ``[outputs, inputs]``, float32 or better.
        gram: ``[inputs, inputs]``, float64.
        pattern: a share of each row or matrix, or N:M.
        protect: bool, like the weight: never pruned.

    Raises:
        ExciseError: too much is protected, or the Gram matrix is not positive definite.
    """
    unit, root = scaled(gram)
    unit, root = unit.to(weight.dtype), root.to(weight.dtype)
    dense = (weight * root).T
    goal = unit @ dense

    def kept(values: Tensor) -> Tensor:
        return ~pruned(values.T.square(), pattern, protect).T

    penalty, moved = PENALTY, False
    support = kept(dense)
    count = int(support.sum())
    masked, dual, before = dense * support, torch.zeros_like(dense), support
    inverse = inverse_shifted(unit, penalty)
    for step in range(1, STEPS + 1):
        free = inverse @ (goal - dual + penalty * masked)
        target = free + dual / penalty
        support = kept(target)
        masked = target * support
        dual = dual + penalty * (free - masked)
        if step % EVERY:
            continue
        changed = int((support ^ before).sum()) / count
        before = support
        if not moved and changed <= 0.005:
            penalty /= 5
            if penalty < SMALLEST:  # the first mask is the best one for any penalty
                break
            if changed:
                masked, dual = dense * kept(dense), torch.zeros_like(dense)
        elif changed == 0 or (step > AT_LEAST and changed < SETTLED):
            break
        else:
            moved = True
            penalty = min(penalty * (1.3 if changed > 0.1 else 1.2 if changed > 0.005 else 1.1), LARGEST)
        inverse = inverse_shifted(unit, penalty)
    support = kept(free)
    return (descend(unit, goal, free * support, support, steps=10) / root[:, None]).T
