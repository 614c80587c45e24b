"""What a task's answer is worth: one number per pair, from the logits of the answer. Larger is better for all of them.

- ``logit-difference``: log of the odds of the right answers against the wrong ones, in logits; where there is one of
  each, logit(right) - logit(wrong).
- ``probability-difference``: probability of all right answers minus that of all wrong ones, -1 to 1.
- ``kl``: minus the Kullback-Leibler divergence, in nats, of the run from the clean run of the whole model. Its
  gradient at the clean run is exactly zero.
"""

import torch

from excise.circuits.batches import PairBatch
from excise.errors import ExciseError, unknown

OBJECTIVES = ("logit-difference", "probability-difference", "kl")


def value(objective: str, logits: torch.Tensor, batch: PairBatch, clean_logits: torch.Tensor) -> torch.Tensor:
    """The objective of every run.

    Args:
        objective: one of ``OBJECTIVES``.
        logits: of the answer, ``[rows, vocabulary]``: all pairs, or all pairs several times over.
        batch: the pairs.
        clean_logits: of the clean run of the whole model, ``[pairs, vocabulary]``; only ``kl`` looks at them.

    Returns:
        ``[rows]``, in float32 or better.
    """
    if objective not in OBJECTIVES:
        raise unknown("objective", objective, OBJECTIVES, where="--objective")
    logs = torch.log_softmax(logits.to(torch.promote_types(logits.dtype, torch.float32)), -1)
    repeats = len(logs) // len(batch.ids)
    if objective == "kl":
        clean = torch.log_softmax(clean_logits.to(logs.dtype), -1).repeat(repeats, 1)
        return -(clean.exp() * (clean - logs)).sum(-1)
    right, wrong = (_of(logs, tokens.repeat(repeats, 1)) for tokens in (batch.answers, batch.wrong))
    return right - wrong if objective == "logit-difference" else right.exp() - wrong.exp()


def _of(logs: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """Log-probability of a set of tokens, filled up with -1, ``[rows]``."""
    chosen = logs.gather(-1, tokens.clamp(min=0)).masked_fill(tokens < 0, -torch.inf)
    return chosen[:, 0] if chosen.shape[1] == 1 else chosen.logsumexp(-1)


def refuse_flat(objective: str, points: tuple[float, ...]) -> None:
    """Refuse gradients of an objective where it is flat.

    Args:
        objective: one of ``OBJECTIVES``.
        points: where the gradients are taken: 0 is the corrupted prompt, 1 the clean one.

    Raises:
        ExciseError: all of them are taken where the gradient is exactly zero.
    """
    if objective == "kl" and all(point == 1 for point in points):
        raise ExciseError(
            "--objective kl: its gradient at the clean run is exactly zero, so every score would be zero. Use "
            "--method eap-ig or relp-ig, or logit-difference or probability-difference."
        )
