"""``relp-qk`` at several inputs between the corrupted and the clean prompt, averaged as ``eap-ig`` averages gradients.

The rules take the noise out of one gradient, the inputs between show what a saturated attention hides from it.
"""

RULE = "relp-qk"


def points(steps: int) -> tuple[float, ...]:
    """Multiples of 1 / steps; the clean prompt is the last."""
    return tuple(step / steps for step in range(1, steps + 1))
