"""RelP whose attention keeps its gradient, so that edges into queries and keys are scored too.

Norms are frozen, activations follow the identity rule, gate x up the half rule (Jafari et al. 2025, arXiv:2508.21258,
without its attention rule). Two forward passes and one backward pass, as ``eap``.
"""

RULE = "relp-qk"


def points(steps: int) -> tuple[float, ...]:  # noqa: ARG001 (the same for every method)
    """The clean prompt."""
    return (1.0,)
