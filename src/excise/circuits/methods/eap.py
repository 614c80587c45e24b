"""Edge attribution patching: the gradient at the clean prompt (Syed et al. 2023, arXiv:2310.10348).

Nanda's attribution patching takes it at the corrupted prompt instead; the two differ.
"""

RULE = None


def points(steps: int) -> tuple[float, ...]:  # noqa: ARG001 (the same for every method)
    """The clean prompt."""
    return (1.0,)
