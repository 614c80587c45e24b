"""RelP as published: coefficients of LRP in the place of gradients (Jafari et al. 2025, arXiv:2508.21258).

Norms are frozen, activations follow the identity rule, gate x up the half rule, and the attention pattern is
constant. So no edge into queries or keys has a score: for edges use ``relp-qk``.
"""

RULE = "relp"


def points(steps: int) -> tuple[float, ...]:  # noqa: ARG001 (the same for every method)
    """The clean prompt."""
    return (1.0,)
