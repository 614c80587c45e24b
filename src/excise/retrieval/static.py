"""Static vectors by model2vec's recipe: every token through the encoder, centred, weighted by rarity."""

from dataclasses import replace

import torch
from torch import Tensor

from excise.errors import ExciseError
from excise.models.encoder import Encoder, batches, forward, padded
from excise.models.static import StaticVectors
from excise.progress import Progress

RARITY = 1e-4
"""a in the weight a / (a + p) of a token of probability p (Arora et al. 2017; model2vec takes the same)."""


def token_vectors(encoder: Encoder) -> Tensor:
    """The embedding of every token of the vocabulary alone, between the special tokens, ``[vocabulary, hidden]``.

    Raises:
        ExciseError: the tokenizer does not put one special token on each side of a text.
    """
    frame = encoder.tokenizer("")["input_ids"]
    if len(frame) != 2:
        raise ExciseError(f"static vectors: expected one special token before a text and one after it, found {frame}")
    bare = replace(encoder, pooling=replace(encoder.pooling, normalise=False))
    size = encoder.model.config.vocab_size
    parts = []
    with torch.inference_mode(), Progress(size, "tokens", "embedding") as progress:
        for places in batches([3] * size):
            parts.append(forward(bare, *padded(bare, [[frame[0], token, frame[1]] for token in places])).cpu())
            progress.advance(len(places))
    return torch.cat(parts)  # equal lengths keep their order


def weights(size: int) -> Tensor:
    """Weight of each token, float64: by Zipf's law from its place, since vocabularies are sorted by frequency."""
    odds = 1 / torch.arange(2, size + 2, dtype=torch.float64)
    return RARITY / (RARITY + odds / odds.sum())


def static(encoder: Encoder) -> Encoder:
    """A table of static vectors that stands in for an encoder.

    model2vec (Tulkens and van Dongen 2024) also rotates the centred vectors onto their principal components; without
    leaving any out, as here, that changes no inner product, and the table stays comparable with the encoder's vectors.

    Args:
        encoder: the dense one.
    """
    found = token_vectors(encoder).double()
    found = (found - found.mean(0)) * weights(len(found))[:, None]
    found[encoder.tokenizer.all_special_ids] = 0.0
    dtype = next(encoder.model.parameters()).dtype
    return replace(encoder, model=StaticVectors(found.to(dtype)).eval(), structure=None)
