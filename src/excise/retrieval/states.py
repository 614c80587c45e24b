"""Batches between the layers of an encoder: what enters the first layer, to go on from there by hand."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from excise.models.encoder import Encoder, forward
from excise.models.parts import decoder_layers
from excise.retrieval.moments import Batch


@dataclass
class State:
    """One batch on its way through both models.

    Attributes:
        dense: input of the next layer of the dense model, ``[texts, tokens, hidden]``.
        built: the same of the model being built.
        mask: true for tokens, ``[texts, tokens]``.
        keywords: what the layers are called with besides.
    """

    dense: Tensor
    built: Tensor
    mask: Tensor
    keywords: dict[str, Any]


class _Seen(Exception):
    """The first layer was reached."""


def first_inputs(encoder: Encoder, batch: Batch) -> State:
    """What enters the first layer."""
    held: list[Any] = []

    def keep(_: object, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        held.extend((arguments, keywords))
        raise _Seen

    handle = decoder_layers(encoder.model)[0].register_forward_pre_hook(keep, with_kwargs=True)
    _, rows, mask = batch
    try:
        forward(encoder, rows, mask)
    except _Seen:
        pass
    finally:
        handle.remove()
    (hidden, *rest), keywords = held
    names = ("attention_mask", "encoder_hidden_states", "encoder_attention_mask", "past_key_values")
    return State(hidden, hidden, mask.bool(), keywords | dict(zip(names, rest, strict=False)))
