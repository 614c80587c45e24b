"""How much each neuron and head of an encoder matters: one score per unit, higher = more important.

Every method gives ``{"neurons": [layers, neurons], "heads": [layers, heads]}`` in float64, comparable within a kind.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from excise.errors import ExciseError
from excise.models.encoder import Encoder
from excise.models.families import architecture
from excise.models.parts import decoder_layers
from excise.retrieval.moments import activation_moments, blocks, embeddings, gradient_moments, projections, sizes

Scores = dict[str, Tensor]

Texts = Sequence[tuple[str, str]]
"""(kind, text) with kind ``query`` or ``document``."""


def embedding(encoder: Encoder, texts: Texts, seed: int) -> Scores:
    """First-order change of the embedding when a unit is held at its mean, squared, averaged over texts.

    The score of a unit is the mean over texts of (sum_t (a_t - mean) . g_t)^2, where g is the gradient of the
    projection of the embedding on a random direction r ~ N(0, I): its expectation over r is the squared length of the
    first-order change of the embedding. One forward and one backward pass; no labels. The idea is Taylor pruning
    (Molchanov et al. 2019, arXiv 1906.10771) about the mean, with the embedding in place of a loss.
    """
    shape = len(texts), encoder.model.config.hidden_size
    return _about_mean(encoder, texts, torch.randn(shape, generator=torch.Generator().manual_seed(seed)))


TEMPERATURE = 0.05
"""Of the softmax over cosines, as encoders of this kind are trained with."""


def fisher(encoder: Encoder, texts: Texts, seed: int) -> Scores:
    """Fisher information of what a text finds: how far holding a unit at its mean moves the ranking, to first order.

    Text s finds text j among all others with probability p_j, the softmax of e_s . e_j / T. One j is drawn from p, and
    the score is the mean over texts of (sum_t (a_t - mean) . g_t)^2, with g the gradient of log p_j, which is that of
    e_s . (e_j - sum_k p_k e_k) / T while the texts that are searched stay as they are. No labels: the answers are drawn
    from the model, as in the Fisher information of Kwon et al. (2022, arXiv 2204.09656), whose gates fade to zero, not
    to the mean.
    """
    if len(texts) < 3:
        raise ExciseError(f"fisher: a ranking needs at least 3 texts, not {len(texts)}")
    vectors, generator = embeddings(encoder, texts), torch.Generator().manual_seed(seed)
    directions = torch.empty_like(vectors)
    for start in range(0, len(vectors), 512):
        similar = vectors[start : start + 512] @ vectors.T / TEMPERATURE
        places = torch.arange(len(similar))
        similar[places, start + places] = -torch.inf
        chances = similar.softmax(-1)
        drawn = torch.multinomial(chances, 1, generator=generator)[:, 0]
        directions[start + places] = (vectors[drawn] - chances @ vectors) / TEMPERATURE
    return _about_mean(encoder, texts, directions)


def lrp(encoder: Encoder, texts: Texts, seed: int) -> Scores:
    """As ``embedding``, by rules of LRP in the place of gradients: squared relevance about the mean.

    Norms are constants, the activation follows the identity rule, and attention keeps its gradient: ``relp-qk`` of
    ``attribution.lxt_patch`` (Achtibat et al. 2024, arXiv 2402.05602; Jafari et al. 2025, arXiv 2508.21258). Of its
    rules this one ranks heads and neurons most as their measured effects do.
    """
    from excise.attribution.lxt_patch import patched

    with patched(encoder.model, "relp-qk") as patch:
        scores = embedding(encoder, texts, seed)
        patch.verify_ran()
    return scores


def _about_mean(encoder: Encoder, texts: Texts, directions: Tensor) -> Scores:
    """Mean over texts of (sum_t (a_t - mean) . g_t)^2, with g the gradient along the text's direction."""
    moments = gradient_moments(encoder, texts, directions)
    scores = {}
    for kind in ("neurons", "heads"):
        mean = moments[f"{kind}.mean"]
        ab = (mean * moments[f"{kind}.ab"]).sum(-1)
        bb = torch.einsum("lus,lusr,lur->lu", mean, moments[f"{kind}.bb"], mean)
        scores[kind] = (moments[f"{kind}.aa"] - 2 * ab + bb).clamp(min=0)
    return scores


def wanda(encoder: Encoder, texts: Texts, seed: int) -> Scores:  # noqa: ARG001 (the interface's)
    """Root mean square of what a unit writes: rms(a) x norm of its column, or rms of W z for a head.

    Wanda's |W| x norm of the input (Sun et al. 2024, arXiv 2306.11695), summed over a whole unit.
    """
    moments = activation_moments(encoder, texts)
    scores = {}
    for kind, size in sizes(encoder).items():
        weights = _output_blocks(encoder, kind, size)
        square = torch.einsum("lhus,lusr,lhur->lu", weights, moments[f"{kind}.square"], weights)
        scores[kind] = square.clamp(min=0).sqrt()
    return scores


def magnitude(encoder: Encoder, texts: Texts, seed: int) -> Scores:  # noqa: ARG001 (the interface's)
    """Norm of the weights that make a unit (for a head those of its values) times the norm of those that read it."""
    family = architecture(encoder.model.config)
    paths = {"neurons": family.inputs[0], "heads": family.attention.value}
    scores = {}
    for kind, size in sizes(encoder).items():
        made = [layer.get_submodule(paths[kind]).get_parameter("weight") for layer in decoder_layers(encoder.model)]
        rows = torch.stack([blocks(weight.double().T, size).square().sum((0, 2)).sqrt() for weight in made])
        scores[kind] = rows * _output_blocks(encoder, kind, size).square().sum((1, 3)).sqrt()
    return scores


def random(encoder: Encoder, texts: Texts, seed: int) -> Scores:  # noqa: ARG001 (the interface's)
    """Uniform random numbers: the control."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {kind: _output_blocks(encoder, kind, size).shape for kind, size in sizes(encoder).items()}
    return {
        kind: torch.rand(shape[0], shape[2], generator=generator, dtype=torch.float64) for kind, shape in shapes.items()
    }


def _output_blocks(encoder: Encoder, kind: str, size: int) -> Tensor:
    """Weights of the projections that read the units, ``[layers, hidden, units, size]``, float64."""
    return torch.stack([blocks(module.get_parameter("weight").double(), size) for module in projections(encoder)[kind]])


METHODS: dict[str, Callable[[Encoder, Texts, int], Scores]] = {
    "embedding": embedding,
    "fisher": fisher,
    "lrp": lrp,
    "wanda": wanda,
    "magnitude": magnitude,
    "random": random,
}
"""By name."""

NEED_TEXTS = ("embedding", "fisher", "lrp", "wanda")
"""Methods that measure texts."""
