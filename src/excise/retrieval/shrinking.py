"""From a dense encoder and a structure to a smaller encoder."""

import copy
from collections.abc import Sequence
from dataclasses import replace

from excise.edits.removal import fold_means
from excise.models.encoder import Encoder
from excise.models.structure import Structure, cut
from excise.retrieval.moments import KINDS, activation_moments, corpus
from excise.retrieval.repair import least_squares

REPAIRS = ("none", "mean", "least-squares")


def shrink(dense: Encoder, structure: Structure, *, repair: str, texts: Sequence[tuple[str, str]]) -> Encoder:
    """Remove what a structure leaves out; the dense encoder stays as it is.

    Args:
        dense: a dense encoder.
        structure: what stays.
        repair: one of ``REPAIRS``.
        texts: calibration texts (kind, text), for a repair.
    """
    model = copy.deepcopy(dense.model)
    if repair == "mean":
        moments = activation_moments(dense, texts)
        layers = len(moments["neurons.mean"])
        means = [{kind: moments[f"{kind}.mean"][layer].flatten() for kind in KINDS} for layer in range(layers)]
        fold_means(model, structure, means)
    cut(model, structure)
    if repair == "least-squares":
        least_squares(dense, model, structure, corpus(dense, texts))
    return replace(dense, model=model, structure=structure)
