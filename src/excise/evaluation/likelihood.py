"""Log-likelihood of given tokens, without ever holding the logits of a whole batch."""

from typing import Any

import torch
from torch import Tensor

from excise.errors import ExciseError
from excise.models.loading import input_device
from excise.models.unpatched import assert_unpatched

NOT_FINITE_HINT = "Is the selection too strong, or the dtype too narrow?"
"""What to look at when the numbers of a model are not finite."""

CHUNK = 512
"""Positions whose logits exist at one time: enough to multiply as fast as all together, 0.26 GB at 128,000 tokens."""


def head(model: Any, hidden: Tensor) -> Tensor:
    """Logits of final hidden states, ``[positions, width]`` to ``[positions, vocabulary]``."""
    logits: Tensor = model.get_output_embeddings()(hidden).to(hidden.device)
    cap = getattr(model.config, "final_logit_softcapping", None)  # Gemma 2 and 3
    return logits if cap is None else torch.tanh(logits / cap) * cap


def last_hidden(model: Any, **inputs: Any) -> Tensor:
    """Final hidden states, on the device of the token ids: a model spread over several ends on another."""
    states: Tensor = model.base_model(**inputs).last_hidden_state
    return states.to(inputs["input_ids"].device)


def check_head(model: Any) -> None:
    """Refuse a model that is patched for LRP, or whose logits are not what ``head`` makes of its last hidden states.

    Raises:
        ExciseError: it is patched, or on a few tokens the logits differ or are not finite.
    """
    assert_unpatched(model)
    ids = torch.arange(min(8, model.config.vocab_size), device=input_device(model))[None]
    with torch.inference_mode():
        expected = model(input_ids=ids, use_cache=False).logits[0]
        found = head(model, last_hidden(model, input_ids=ids, use_cache=False)[0])
    if not torch.isfinite(expected).all():
        raise ExciseError(f"the model gives logits that are not finite numbers. {NOT_FINITE_HINT}")
    difference = float((found - expected).abs().max())
    if not difference <= 0.02 * float(expected.abs().max()):
        raise ExciseError(
            f"model type {model.config.model_type!r}: its logits differ by {difference:.3g} from its output embedding "
            "applied to its last hidden states, so its head does something that excise.evaluation.likelihood.head "
            "does not know; add it there"
        )


def log_normaliser(logits: Tensor) -> Tensor:
    """``logsumexp`` over the vocabulary, ``[rows, vocabulary]`` to ``[rows]``.

    On a CPU a few rows at a time, so that the intermediate values stay in the cache: half the time, the same bits.
    """
    if logits.device.type != "cpu":
        return logits.logsumexp(-1)
    return torch.cat([rows.logsumexp(-1) for rows in torch.split(logits, 4)])


def token_nll(model: Any, hidden: Tensor, targets: Tensor, *, chunk: int = CHUNK) -> Tensor:
    """Negative log-likelihood of each target token, in nats.

    Args:
        model: a causal language model.
        hidden: final hidden states of the positions before the targets, ``[positions, width]``.
        targets: token ids, ``[positions]``.
        chunk: positions whose logits are computed together; changes the memory, not the result.

    Returns:
        float64 on the CPU, ``[positions]``.
    """
    parts = []
    for states, ids in zip(torch.split(hidden, chunk), torch.split(targets, chunk), strict=True):
        logits = head(model, states)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        parts.append((log_normaliser(logits) - logits.gather(-1, ids[:, None])[:, 0]).cpu().double())
    return torch.cat(parts) if parts else torch.zeros(0, dtype=torch.float64)
