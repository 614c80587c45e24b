"""Prune the weights of the linear maps of one layer."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from excise.artefacts import Json, read_tensors
from excise.compress import least_squares, method, obs, owl, permutation, scorer, solver, wanda
from excise.compress.change import Dense, Place, maps_in, neurons_at, turned
from excise.compress.inputs import Inputs
from excise.compress.masks import pruned_together
from excise.compress.patterns import KeepNofM, Pattern, Share, check_divides
from excise.compress.protect import protected
from excise.compress.recipe import Recipe, check_together, needs
from excise.errors import ExciseError
from excise.models.families import architecture
from excise.models.parts import linear_maps

REPAIRS = {"none": None, "obs": obs.repair, "least-squares": least_squares.fit}
"""What is done to the weights that are kept, by the names of ``recipe.RECONSTRUCTIONS``."""


@dataclass(frozen=True)
class Prune:
    """Prune weights of every layer.

    Attributes:
        recipe: how.
        scope: which maps, one of ``recipe.SCOPES``.
        permute: order the neurons first, so that N:M keeps more of the MLP's output projection.
        protect: a unit list whose weights are not pruned; the same number is pruned of the others.
        shares: how the share is spread over layers, one of ``recipe.SHARES``.
        relevance: folder that ``excise weight-relevance`` wrote, where the method needs one.
        by_layer: the pattern of each layer, where ``shares`` is not uniform and the change is prepared.
    """

    recipe: Recipe
    scope: str = "all"
    permute: bool = False
    protect: Json | None = None
    shares: str = "uniform"
    relevance: Path | None = None
    by_layer: tuple[Pattern, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what does not go together.

        Raises:
            ExciseError: as ``recipe.check_together``.
        """
        check_together(
            self.recipe, self.scope, permute=self.permute, protects=self.protect is not None, shares=self.shares
        )

    @property
    def needs(self) -> str:
        """What is measured of the maps' inputs."""
        return needs(self.recipe, self.shares)

    def maps(self, model: Any, layer: int) -> dict[str, nn.Module]:
        """The linear maps of a layer, by path: all, those of the attention, or those of the MLP."""
        return maps_in(self.scope, model, layer)

    def check(self, model: Any) -> None:
        """Refuse N:M on a map whose number of inputs M does not divide.

        Raises:
            ExciseError: there is one.
        """
        for name, part in self.maps(model, 0).items():
            check_divides(self.recipe.pattern, turned(part, part.get_parameter("weight")).shape[1], name)

    def prepared(self, model: Any, dense: Dense, place: Place) -> "Prune":
        """With the share of each layer, where they differ.

        Raises:
            ExciseError: a layer would lose nothing or all.
        """
        pattern = self.recipe.pattern
        if self.shares == "uniform" or not isinstance(pattern, Share):
            return self
        ratios = []
        for number, (tensors, inputs) in enumerate(dense()):
            weights = {
                name: place.exact(turned(part, tensors[f"{name}.weight"]))
                for name, part in self.maps(model, number).items()
            }
            scores = [wanda.score(weight, inputs[name].norms.to(weight.dtype)) for name, weight in weights.items()]
            ratios.append(owl.outliers(scores))
        return replace(self, by_layer=tuple(Share(one, pattern.group) for one in owl.shares(ratios, pattern.share)))

    def entries(self, config: Any) -> Json:  # noqa: ARG002 (shapes stay)
        """None: shapes stay."""
        return {}

    def apply(
        self, model: Any, tensors: dict[str, Tensor], inputs: dict[str, Inputs], layer: int, place: Place
    ) -> tuple[dict[str, Tensor], list[Json]]:
        """The pruned weights in the dtype they are stored in, and a row with exact counts per map.

        Raises:
            ExciseError: as ``edit``.
        """
        maps = self.maps(model, layer)
        moved: dict[str, Tensor] = {}
        ordered: dict[str, Json] = {}
        if self.permute:
            moved, ordered = self._order(model, tensors, inputs, layer, place)
            path = architecture(model.config).output
            tensors = tensors | moved
            if path in inputs:
                inputs = inputs | {path: inputs[path].ordered(torch.tensor(ordered[path]["order"]))}
        weights = {name: place.exact(turned(part, tensors[f"{name}.weight"])) for name, part in maps.items()}
        protect: dict[str, Tensor] = {}
        if self.protect is not None:
            shapes = {name: (weight.shape[0], weight.shape[1]) for name, weight in weights.items()}
            protect = protected(self.protect, model.config, shapes, layer)
            protect = {name: mask.to(place.device) for name, mask in protect.items()}
        recipe = replace(self.recipe, pattern=self.by_layer[layer]) if self.by_layer else self.recipe
        share = {"share": float(recipe.pattern.pruned)} if self.by_layer else {}
        relevance: dict[str, Tensor] = {}
        if self.relevance is not None:
            measured = read_tensors(self.relevance / f"layer-{layer:03}.safetensors")[1]
            relevance = {name: place.exact(turned(part, measured[name])) for name, part in maps.items()}
        edited, known = edit(weights, inputs, recipe, layer=layer, protect=protect, relevance=relevance)
        new, rows = dict(moved), []
        for name, weight in edited.items():
            before = tensors[f"{name}.weight"]
            after = new[f"{name}.weight"] = turned(maps[name], weight).to("cpu", before.dtype).contiguous()
            counts = {
                "weights": before.numel(),
                "zeros_before": int((before == 0).sum()),
                "zeros_made": int(((after == 0) & (before != 0)).sum()),
                "zeros": int((after == 0).sum()),
            }
            rows.append({"layer": layer, "map": name, **counts, **share, **known[name], **ordered.get(name, {})})
        return new, rows

    def _order(
        self, model: Any, tensors: dict[str, Tensor], inputs: dict[str, Inputs], layer: int, place: Place
    ) -> tuple[dict[str, Tensor], dict[str, Json]]:
        """The MLP's tensors with their neurons in another order, and what the manifest says of it.

        A solver has no score; Wanda's is taken for it.
        """
        family, maps, pattern = architecture(model.config), linear_maps(model, layer), self.recipe.pattern
        assert isinstance(pattern, KeepNofM)  # noqa: S101 (refused above)
        path, part = family.output, maps[family.output]
        weight = place.exact(turned(part, tensors[f"{path}.weight"]))
        recipe = replace(self.recipe, method="wanda") if method(self.recipe.method).solver else self.recipe
        score = score_of(path, weight, inputs.get(path), recipe, layer)
        if not score.isfinite().all():
            raise ExciseError(f"layer {layer}, {path}: a weight or a calibration input is not finite")
        found = permutation.order(score, pattern)
        new = {f"{path}.weight": turned(part, turned(part, tensors[f"{path}.weight"])[:, found])}
        new |= neurons_at(family, maps, tensors, found, weight.shape[1])
        return new, {
            path: {
                "order": found.tolist(),
                "retained_before": permutation.retained(score, pattern),
                "retained": permutation.retained(score[:, found], pattern),
            }
        }

    def total(self, rows: list[Json]) -> Json:
        """Sums of the counts."""
        return {key: sum(row[key] for row in rows) for key in ("weights", "zeros_before", "zeros_made", "zeros")}


def edit(
    weights: dict[str, Tensor],
    inputs: dict[str, Inputs],
    recipe: Recipe,
    *,
    layer: int,
    protect: Mapping[str, Tensor] = MappingProxyType({}),
    relevance: Mapping[str, Tensor] = MappingProxyType({}),
) -> tuple[dict[str, Tensor], dict[str, Json]]:
    """Prune maps of one layer.

    Args:
        weights: path -> ``[outputs, inputs]``, in the precision to compute in.
        inputs: path -> what calibration measured; may be empty where the recipe needs none.
        recipe: the method and its settings.
        layer: number of the layer; the random control draws other numbers for each map.
        protect: path -> True where a weight may not be pruned.
        relevance: path -> the relevance of each weight, where the method needs it.

    Returns:
        The new weights, and for each map what is known of the edit: ``error`` is the change of the map's outputs on the
        calibration tokens relative to the outputs, ``|X (W - W')'|^2 / |X W'|^2``, where the Gram matrix is measured.

    Raises:
        ExciseError: the pattern does not fit a map, a number is not finite, a Gram matrix cannot be inverted, or a
            method did not keep the pattern; names the map.
    """
    for name, weight in weights.items():
        check_divides(recipe.pattern, weight.shape[1], f"layer {layer}, {name}")
        if not weight.isfinite().all() or (name in inputs and not inputs[name].squares.isfinite().all()):
            raise ExciseError(f"layer {layer}, {name}: a weight or a calibration input is not finite")
    if method(recipe.method).solver:
        edited = {
            name: _solved(weight, inputs[name], recipe, protect.get(name), f"layer {layer}, {name}")
            for name, weight in weights.items()
        }
        masks = [weight == 0 for weight in edited.values()]
    else:
        scores = [
            score_of(name, weight, inputs.get(name), recipe, layer, relevance.get(name))
            for name, weight in weights.items()
        ]
        masks = pruned_together(scores, recipe.pattern, [protect.get(name) for name in weights])
        edited = {
            name: weight.masked_fill(mask, 0) for (name, weight), mask in zip(weights.items(), masks, strict=True)
        }
    repair = REPAIRS[recipe.reconstruct]
    if repair is not None:
        for (name, weight), mask in zip(weights.items(), masks, strict=True):
            edited[name] = repair(weight, mask, gram_of(inputs[name]))
    rows = {}
    for name, weight in weights.items():
        _check(edited[name], recipe.pattern, name in protect, f"layer {layer}, {name}")
        rows[name] = {"error": relative_error(weight, edited[name], inputs[name])} if recipe.needs == "gram" else {}
    return edited, rows


def _solved(weight: Tensor, inputs: Inputs, recipe: Recipe, protect: Tensor | None, where: str) -> Tensor:
    try:
        return solver(recipe.method).solve(weight, gram_of(inputs), recipe.pattern, protect)
    except ExciseError as error:
        raise ExciseError(f"{where}: {error}") from error


def gram_of(inputs: Inputs) -> Tensor:
    """The Gram matrix, where it was measured."""
    if inputs.gram is None:
        raise ValueError("no Gram matrix was measured")
    return inputs.gram


def score_of(
    name: str, weight: Tensor, inputs: Inputs | None, recipe: Recipe, layer: int, relevance: Tensor | None = None
) -> Tensor:
    """The scores of one map by a method that has scores; the lowest are pruned."""
    module = scorer(recipe.method)
    match method(recipe.method).needs:
        case "weights":
            return module.score(weight)
        case "seed":
            drawn = hashlib.sha256(f"{recipe.seed} {layer} {name}".encode()).digest()
            return module.score(weight, int.from_bytes(drawn[:6]))
        case "relevance" if relevance is not None:
            return module.score(weight, relevance)
    if inputs is None:
        raise ValueError(f"{name}: no inputs were measured")
    return module.score(weight, inputs.norms.to(weight.dtype))


def relative_error(before: Tensor, after: Tensor, inputs: Inputs) -> float:
    """``|X (W - W')'|^2 / |X W'|^2`` on the calibration tokens: how much a map's outputs change."""
    gram = gram_of(inputs).to(before.dtype)
    change = before - after
    total = ((before @ gram) * before).sum(dtype=torch.float64)
    return float(((change @ gram) * change).sum(dtype=torch.float64) / total) if total > 0 else 0.0


def _check(weight: Tensor, pattern: Pattern, protected: bool, where: str) -> None:
    """Every comparison group has at least as many zeros as the pattern prunes.

    Raises:
        ExciseError: one has not: the method is wrong.
    """
    if not weight.isfinite().all():
        raise ExciseError(f"{where}: an edited weight is not finite; calibrate with more tokens, or in float64")
    if isinstance(pattern, KeepNofM):
        groups, least = weight.reshape(-1, pattern.size), pattern.size - pattern.kept
    elif pattern.group == "layer":
        return  # counted over the layer, by construction
    else:
        rows = weight if pattern.group == "row" else weight.reshape(1, -1)
        least = int(pattern.share * rows.shape[1]) * (len(rows) if protected else 1)
        groups = rows.reshape(1, -1) if protected else rows  # rows make up for protected ones
    if ((groups == 0).sum(1) < least).any():
        raise ExciseError(f"{where}: the edited weights do not keep the pattern ({pattern}); please report this")
