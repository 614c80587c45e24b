"""What a task measured of a variant: one value per item, in one shape for every task (as a file: ``files``).

An item is what may be resampled: the generations of one prompt are one item, the queries of one user too.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from excise.artefacts import Json
from excise.errors import ExciseError, unknown

Values = NDArray[np.float64]

AGGREGATES = {
    "mean": "sum of weights x values / sum of weights",
    "ratio": "sum of values / sum of weights: weights are the denominators",
    "perplexity": "exp(sum of values / sum of weights): values are summed nats, weights the tokens they are of",
}
"""How values of items become one figure; v and w are values and weights, w = 1 where there are none."""

DIRECTIONS = ("lower", "higher")
UNITS = ("number", "share")

TOLERANCE = 1e-9
"""A figure may differ from what its values aggregate to by this much, relative to its size or to 1."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Metric:
    """One figure of a measurement and the values of the items behind it.

    Attributes:
        figure: what the values aggregate to; None where no item has any weight.
        values: one per item, ``[items]``; None where only the figure is known.
        weights: one per item, ``[items]``; None = all 1.
        aggregate: one of ``AGGREGATES``.
        direction: ``lower`` or ``higher`` is better; None: neither.
        unit: one of ``UNITS``.
        compared: whether a summary compares it with the baseline, or only shows its figure.
        title: head of its column in tables; empty: the measurement's label and the metric's name.
    """

    figure: float | None
    values: Values | None
    weights: Values | None = None
    aggregate: str = "mean"
    direction: str | None = None
    unit: str = "number"
    compared: bool = True
    title: str = ""

    @classmethod
    def of(
        cls,
        values: ArrayLike,
        weights: ArrayLike | None = None,
        *,
        aggregate: str = "mean",
        **more: Any,
    ) -> "Metric":
        """A metric from its values; the figure is computed. ``more``: the other attributes."""
        v = np.asarray(values, dtype=np.float64)
        if v.ndim != 1:
            raise ExciseError(f"a metric needs one value per item; these have shape {v.shape}")
        w = None if weights is None else np.asarray(weights, dtype=np.float64)
        return cls(figure=aggregated(v, w, aggregate), values=v, weights=w, aggregate=aggregate, **more)

    def sums(self) -> tuple[Values, Values]:
        """Numerators and denominators, ``[items]`` each: the ratio of their sums is the mean, ratio or log perplexity.

        Raises:
            ExciseError: only the figure is known.
        """
        if self.values is None:
            raise ExciseError("this metric has no values per item, only its figure")
        weights = np.ones_like(self.values) if self.weights is None else self.weights
        return (self.values * weights if self.aggregate == "mean" else self.values), weights

    def take(self, items: Sequence[int]) -> "Metric":
        """The metric of some of the items."""
        if self.values is None:
            raise ExciseError("this metric has no values per item, only its figure")
        return Metric.of(
            self.values[list(items)],
            None if self.weights is None else self.weights[list(items)],
            aggregate=self.aggregate,
            **{key: getattr(self, key) for key in KEPT},
        )


KEPT = ("direction", "unit", "compared", "title")
"""Attributes of a metric that are kept, written and read as they are, its aggregate besides."""


def aggregated(values: Values, weights: Values | None, aggregate: str) -> float | None:
    """The figure of values, summed exactly (``math.fsum``); None where the weights sum to 0.

    Args:
        values: ``[items]``.
        weights: ``[items]``; None = all 1.
        aggregate: one of ``AGGREGATES``.
    """
    if aggregate not in AGGREGATES:
        raise unknown("aggregate", aggregate, AGGREGATES)
    total = float(values.size) if weights is None else math.fsum(weights)
    if total == 0:
        return None
    products = values if weights is None or aggregate != "mean" else values * weights
    mean = math.fsum(products) / total
    return math.exp(mean) if aggregate == "perplexity" else mean


@dataclass(frozen=True, kw_only=True, eq=False)
class Measurement:
    """What one task measured of one variant; the module's docstring explains the fields."""

    task: str
    name: str
    items: Sequence[str]
    metrics: Mapping[str, Metric]
    label: str = ""
    item: str = "item"
    serial: bool = False
    groups: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    settings: Json = field(default_factory=dict)
    details: Json = field(default_factory=dict)
    provenance: Json = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check that everything is per item, finite, and agrees with its figure.

        Raises:
            ExciseError: it does not; names the measurement and the metric.
        """
        where = f"measurement {self.name!r} of task {self.task}"
        if len(set(self.items)) < len(self.items):
            twice = next(item for item in self.items if list(self.items).count(item) > 1)
            raise ExciseError(f"{where}: item {twice!r} comes twice; ids must be different")
        for name, known in self.groups.items():
            if len(known) != len(self.items):
                raise ExciseError(f"{where}: group {name!r} has {len(known)} values for {len(self.items)} items")
        for name, metric in self.metrics.items():
            _check_metric(metric, len(self.items), f"{where}: metric {name!r}")


def _check_metric(metric: Metric, items: int, where: str) -> None:
    if metric.aggregate not in AGGREGATES:
        raise unknown("aggregate", metric.aggregate, AGGREGATES, where=where)
    if metric.direction is not None and metric.direction not in DIRECTIONS:
        raise unknown("direction", metric.direction, DIRECTIONS, where=where)
    if metric.unit not in UNITS:
        raise unknown("unit", metric.unit, UNITS, where=where)
    if metric.figure is not None and not math.isfinite(metric.figure):
        raise ExciseError(f"{where}: its figure is not a finite number")
    if metric.values is None:
        return
    if metric.aggregate != "mean" and metric.weights is None:
        raise ExciseError(f"{where}: aggregate {metric.aggregate} needs weights ({AGGREGATES[metric.aggregate]})")
    for kind, array in (("values", metric.values), ("weights", metric.weights)):
        if array is None:
            continue
        if array.shape != (items,):
            raise ExciseError(f"{where}: {kind} of shape {array.shape} for {items} items; give one per item")
        if not np.isfinite(array).all():
            raise ExciseError(f"{where}: {kind}: item {int(np.argmin(np.isfinite(array)))} is not a finite number")
    found = aggregated(metric.values, metric.weights, metric.aggregate)
    if (found is None) != (metric.figure is None) or (
        found is not None
        and metric.figure is not None
        and abs(found - metric.figure) > TOLERANCE * max(1.0, abs(found))
    ):
        raise ExciseError(
            f"{where}: its figure is {metric.figure}, but its values give {found} ({metric.aggregate}); "
            "the file is inconsistent: make it again"
        )


KINDS = ("baseline", "candidate", "replicate", "control")


@dataclass(frozen=True, kw_only=True)
class About:
    """What a variant is: what tables and plots say of it.

    Attributes:
        kind: ``baseline``: the model that all others are compared with; ``control``: it never wins;
            ``replicate``: a later finding of a candidate, which does not win either.
        method: how its units or weights were chosen.
        series: the configured variant; the sizes of one series belong together.
        unit: what was taken: ``neuron``, ``head``, ``weight``, ...
        size: how many units, or which share of the weights.
        share: share of all units or weights.
        scale: what is left of a unit's output (``per row``: each unit has its own).
        ablation: what it is scaled about: ``zero`` or ``mean``.
        pattern: N:M where N of every M weights are kept; None where a share is pruned.
        finding: which finding of its series it is, each from references of its own.
    """

    kind: str = "candidate"
    method: str | None = None
    series: str | None = None
    unit: str | None = None
    size: float | None = None
    share: float | None = None
    scale: float | str | None = None
    ablation: str | None = None
    pattern: str | None = None
    finding: int = 1

    def __post_init__(self) -> None:
        """Check the kind."""
        if self.kind not in KINDS:
            raise unknown("kind of variant", self.kind, KINDS)


@dataclass(frozen=True, kw_only=True, eq=False)
class Measured:
    """One file: everything measured of one variant.

    Attributes:
        variant: its name in tables.
        measurements: in the order of the file.
        about: what it is.
        meta: provenance; its ``model`` says which model was measured.
    """

    variant: str
    measurements: Sequence[Measurement]
    about: About = field(default_factory=About)
    meta: Json = field(default_factory=dict)


def merged(files: Iterable[Measured]) -> list[Measured]:
    """Files of one variant put together, in the order in which variants first come.

    Raises:
        ExciseError: two files of a variant measure the same.
    """
    found: dict[str, Measured] = {}
    for one in files:
        earlier = found.get(one.variant)
        if earlier is None:
            found[one.variant] = one
            continue
        if one.about != earlier.about:
            raise ExciseError(f"variant {one.variant!r}: {one.about} in one file, {earlier.about} in another")
        if both := {m.name for m in earlier.measurements} & {m.name for m in one.measurements}:
            raise ExciseError(f"variant {one.variant!r}: {min(both)!r} is given more than once")
        joined = [*earlier.measurements, *one.measurements]
        found[one.variant] = replace(earlier, measurements=joined)
    return list(found.values())


def check_comparable(first: Measured, other: Measured) -> None:
    """Refuse two variants whose values cannot be compared item by item.

    Raises:
        ExciseError: other tasks, items, metrics or settings; names the variant and what differs.
    """
    before = {one.name: one for one in first.measurements}
    after = {one.name: one for one in other.measurements}
    where = f"variant {other.variant!r} against {first.variant!r}"
    if before.keys() != after.keys():
        raise ExciseError(
            f"{where}: {', '.join(sorted(before.keys() ^ after.keys()))} was measured of one of them only"
        )
    for name, one in before.items():
        two, what = after[name], f"{where}: {name}"
        if list(one.items) != list(two.items):
            raise ExciseError(
                f"{what}: not the same items in the same order ({len(two.items)} against {len(one.items)}); a paired "
                "comparison needs both measured on the same"
            )
        for key in sorted(one.settings.keys() | two.settings.keys()):
            if one.settings.get(key) != two.settings.get(key):
                raise ExciseError(
                    f"{what}: setting {key} differs: {two.settings.get(key)} against {one.settings.get(key)}"
                )
        kinds = [{m: (metric.aggregate, metric.direction) for m, metric in each.metrics.items()} for each in (one, two)]
        if kinds[0] != kinds[1] or one.task != two.task or one.serial != two.serial:
            raise ExciseError(f"{what}: other metrics or another kind of task: {kinds[1]} against {kinds[0]}")


def find(measured: Measured, address: str, *, where: str = "") -> tuple[Measurement, Metric]:
    """The metric that an address NAME.METRIC names.

    Raises:
        ExciseError: there is none; lists those that there are.
    """
    known: dict[str, tuple[Measurement, Metric]] = {
        f"{one.name}.{name}": (one, metric) for one in measured.measurements for name, metric in one.metrics.items()
    }
    if address not in known:
        raise unknown("metric", address, known, where=where)
    return known[address]
