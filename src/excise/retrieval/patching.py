"""The effect of heads and neurons, measured: hold one at its mean, and see how far the embeddings turn.

This is the truth that cheap scores are compared with, on texts that they have not seen.
"""

import contextlib
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from excise.errors import ExciseError
from excise.models.encoder import Encoder
from excise.models.families import head_shape, neuron_shape
from excise.models.parts import decoder_layers
from excise.models.pooling import pool
from excise.retrieval.importance import Texts
from excise.retrieval.moments import activation_moments, corpus, projections, sizes
from excise.retrieval.states import State, first_inputs


def unit_effects(encoder: Encoder, texts: Texts, kind: str, units: Sequence[tuple[int, int]]) -> Tensor:
    """Mean over texts of 1 - cos(embedding, embedding with the unit's activation held at its mean), ``[units]``.

    The mean is over the tokens of these texts. The layers before the unit are run once.

    Args:
        encoder: a dense encoder.
        texts: (kind, text).
        kind: ``neurons`` or ``heads``.
        units: (layer, unit) of each.
    """
    means, size = activation_moments(encoder, texts)[f"{kind}.mean"], sizes(encoder)[kind]
    layers, outputs = decoder_layers(encoder.model), projections(encoder)[kind]
    effects = torch.zeros(len(units), dtype=torch.float64)
    with torch.inference_mode():
        for batch in corpus(encoder, texts):
            state = first_inputs(encoder, batch)
            states = [state.dense]
            for module in layers:
                states.append(module(states[-1], **state.keywords))
            before = pool(states[-1], state.mask, encoder.pooling)
            for place, (layer, unit) in enumerate(units):
                channels = slice(unit * size, (unit + 1) * size)
                after = held(encoder, state, states[layer], layer, [(outputs[layer], channels, means[layer, unit])])
                cosine = torch.nn.functional.cosine_similarity(before.double(), after.double(), dim=-1)
                effects[place] += (1 - cosine).sum().cpu()
    return effects / len(texts)


def drawn_units(encoder: Encoder, *, neurons: int, seed: int) -> dict[str, list[tuple[int, int]]]:
    """All heads, and so many neurons drawn at random, as (layer, unit).

    Raises:
        ExciseError: there are fewer neurons.
    """
    config = encoder.model.config
    layers, width = neuron_shape(config)
    if not 0 <= neurons <= layers * width:
        raise ExciseError(f"{neurons} neurons to measure: the encoder has {layers * width}")
    drawn = np.random.default_rng(seed).choice(layers * width, neurons, replace=False)
    found = {"heads": [(layer, head) for layer in range(layers) for head in range(head_shape(config)[1])]}
    return found | ({"neurons": [divmod(place, width) for place in sorted(drawn.tolist())]} if neurons else {})


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
