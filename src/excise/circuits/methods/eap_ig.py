"""EAP with integrated gradients over the inputs (Hanna et al. 2024, arXiv:2403.17806).

Gradients are averaged over inputs between the corrupted and the clean prompt: k / steps for k = 0 to steps - 1, as in
the authors' code and in MIB; the paper's equation has k = 1 to steps.
"""

RULE = None


def points(steps: int) -> tuple[float, ...]:
    """From the corrupted prompt on; the clean one is not among them."""
    return tuple(step / steps for step in range(steps))
