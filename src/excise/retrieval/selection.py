"""Which units of an encoder stay: a share of each kind is removed, least important first."""

import math
from collections.abc import Sequence

from torch import Tensor

from excise.errors import ExciseError, unknown
from excise.models.structure import Layer, Structure

SCOPES = ("global", "layer")
"""``global``: units of all layers compete; ``layer``: every layer loses the same share."""

LEAST_SHARE = 1 / 64
"""Share of its neurons that every layer keeps at least; of its heads it keeps one."""


def least(kind: str, width: int) -> int:
    """Units of a kind that every layer keeps."""
    return max(1, math.ceil(width * LEAST_SHARE)) if kind == "neurons" else 1


def kept(scores: Tensor, share: float, *, kind: str, scope: str = "global") -> list[tuple[int, ...]]:
    """For each layer the units that stay, ascending.

    Args:
        scores: ``[layers, units]``, higher = more important. Ties go to the earlier layer and unit.
        share: to remove, from 0 to below 1; ``round(share * units)`` of all (or of each layer) go.
        kind: ``neurons`` or ``heads``.
        scope: one of ``SCOPES``.

    Raises:
        ExciseError: the share is out of range or would empty a layer.
    """
    if scope not in SCOPES:
        raise unknown("scope", scope, SCOPES)
    if not 0 <= share < 1:
        raise ExciseError(f"--{kind} {share}: the share of {kind} to remove must be at least 0 and below 1")
    width = scores.shape[1]
    floor = least(kind, width)
    groups = [scores] if scope == "global" else [row[None] for row in scores]
    stays: list[tuple[int, ...]] = []
    for group in groups:
        remove = round(share * group.numel())
        if remove > len(group) * (width - floor):
            raise ExciseError(
                f"--{kind} {share}: {remove} of {group.numel()} {kind} would go, but every layer keeps at least "
                f"{floor}, so at most {1 - floor / width:.4f} can: lower the share, or drop layers (--keep-layers)"
            )
        protected = group.clone()
        for row in protected:  # the best of every layer stay, whatever the others are worth
            row[row.sort(descending=True, stable=True).indices[:floor]] = float("inf")
        order = (-protected.flatten()).sort(stable=True).indices[: group.numel() - remove].tolist()
        stays += [
            tuple(sorted(place % width for place in order if place // width == layer)) for layer in range(len(group))
        ]
    return stays


def structure(
    scores: dict[str, Tensor],
    *,
    neurons: float = 0.0,
    heads: float = 0.0,
    scope: str = "global",
    layers: Sequence[int] | None = None,
) -> Structure:
    """What stays of an encoder.

    Args:
        scores: of ``importance``.
        neurons: share of the neurons to remove, of those in layers that stay.
        heads: the same for heads.
        scope: one of ``SCOPES``.
        layers: the layers that stay (default: all).

    Raises:
        ExciseError: a share or a layer is out of range.
    """
    total = len(scores["neurons"])
    chosen = sorted(set(layers)) if layers is not None else list(range(total))
    if not chosen or not 0 <= chosen[0] <= chosen[-1] < total:
        raise ExciseError(f"--keep-layers {chosen}: the model has the layers 0 to {total - 1}; at least one must stay")
    stays = {
        kind: kept(scores[kind][chosen], share, kind=kind, scope=scope)
        for kind, share in (("neurons", neurons), ("heads", heads))
    }
    rows = tuple(Layer(layer, stays["heads"][place], stays["neurons"][place]) for place, layer in enumerate(chosen))
    return Structure(rows, scores["heads"].shape[1], scores["neurons"].shape[1])


def evenly(total: int, count: int) -> list[int]:
    """``count`` of ``total`` layers, evenly spaced with the last one: layers that a smaller student is begun with.

    Raises:
        ExciseError: there are not so many.
    """
    if not 1 <= count <= total:
        raise ExciseError(f"{count} of {total} layers cannot be kept")
    return [round((place + 1) * total / count) - 1 for place in range(count)]
