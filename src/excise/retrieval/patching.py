"""The effect of every head, measured: hold it at its mean, and see how far the embeddings turn.

This is the truth that cheap scores are compared with, on texts that they have not seen.
"""

import contextlib
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from excise.models.encoder import Encoder
from excise.models.parts import attention_outputs, decoder_layers
from excise.models.pooling import pool
from excise.retrieval.importance import Texts
from excise.retrieval.moments import activation_moments, corpus, sizes
from excise.retrieval.states import State, first_inputs


def head_effects(encoder: Encoder, texts: Texts) -> Tensor:
    """Mean over texts of 1 - cos(embedding, embedding with the head's output held at its mean), ``[layers, heads]``.

    The mean is over the tokens of these texts. The layers before the head are run once.

    Args:
        encoder: a dense encoder.
        texts: (kind, text).
    """
    means = activation_moments(encoder, texts)["heads.mean"]
    layers, outputs, size = decoder_layers(encoder.model), attention_outputs(encoder.model), sizes(encoder)["heads"]
    effects = torch.zeros(means.shape[:2], dtype=torch.float64)
    with torch.inference_mode():
        for batch in corpus(encoder, texts):
            state = first_inputs(encoder, batch)
            states = [state.dense]
            for module in layers:
                states.append(module(states[-1], **state.keywords))
            before = pool(states[-1], state.mask, encoder.pooling)
            for layer, heads in enumerate(means):
                for head, mean in enumerate(heads):
                    channels = slice(head * size, (head + 1) * size)
                    after = held(encoder, state, states[layer], layer, [(outputs[layer], channels, mean)])
                    cosine = torch.nn.functional.cosine_similarity(before.double(), after.double(), dim=-1)
                    effects[layer, head] += (1 - cosine).sum().cpu()
    return effects / len(texts)


Hold = tuple[nn.Module, slice, Tensor]
"""(projection, channels of its input, what they are held at)."""


def held(encoder: Encoder, state: State, hidden: Tensor, layer: int, holds: Sequence[Hold]) -> Tensor:
    """Embeddings of a batch, from the input of a layer on, with channels held at given values."""
    with contextlib.ExitStack() as stack:
        for module, channels, value in holds:

            def hold(
                _: object, entering: tuple[Tensor, ...], channels: slice = channels, value: Tensor = value
            ) -> tuple[Tensor]:
                values = entering[0].clone()
                values[..., channels] = value.to(values)
                return (values,)

            stack.callback(module.register_forward_pre_hook(hold).remove)
        for module in decoder_layers(encoder.model)[layer:]:
            hidden = module(hidden, **state.keywords)
    return pool(hidden, state.mask, encoder.pooling)
