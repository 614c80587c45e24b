"""How much of a task a circuit carries, and how much circuits of a method carry over all sizes.

    f(n) = (m(n) - m(empty)) / (m(full) - m(empty))

with m the mean of the objective over pairs: a ratio of means. ``empty`` has no edge, so everything reads what replaces
it; ``full`` is the model. 1 is the model, 0 the corrupted prompt; above 1 the circuit does the task more than the model
does. Over sizes, by the trapezoid rule on a linear axis (MIB, Mueller et al. 2025, arXiv:2504.13151):

    CPR = area under f, of circuits of the best edges by signed score; higher is better
    CMD = area between f and 1, of circuits of the best edges by absolute score; 0 is best

``FRACTIONS`` begin at 0.001, so f = 1 everywhere has the area 0.999; half of it lies between 0.5 and 1, where nobody
looks for a circuit. So the same areas are given on a logarithmic axis too, as means over it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from excise.errors import ExciseError

FRACTIONS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
"""Of all edges: MIB's."""

RESAMPLES = 2_000

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Curve:
    """Faithfulness of the circuits of one ranking.

    Attributes:
        faithfulness: f per fraction.
        intervals: 95 % bootstrap interval per fraction; pairs are resampled, all sizes at once.
        areas: ``cpr``, ``cmd``, ``cpr_log``, ``cmd_log``.
        area_intervals: their bootstrap intervals.
    """

    faithfulness: list[float]
    intervals: list[tuple[float, float]]
    areas: dict[str, float]
    area_intervals: dict[str, tuple[float, float]]


def faithfulness(circuit: Values, full: Values, empty: Values) -> Values:
    """F from values per pair, ``[..., pairs]`` -> ``[...]``.

    Args:
        circuit: objective of the circuit.
        full: objective of the model.
        empty: objective with all edges replaced.
    """
    ground = empty.mean(-1)
    return np.asarray((circuit.mean(-1) - ground) / (full.mean(-1) - ground))


def refuse_no_gap(full: Values, empty: Values) -> None:
    """Refuse a task on which the clean and the replaced run are alike.

    Raises:
        ExciseError: the mean difference is within two of its standard errors of zero, or exactly zero.
    """
    gap = full - empty
    error = gap.std(ddof=1) / gap.size**0.5 if gap.size > 1 else 0.0
    if abs(gap.mean()) <= 2 * error or gap.mean() == 0:
        raise ExciseError(
            f"m(full) - m(empty) is {gap.mean():.3g} with a standard error of {error:.2g}: the corruption does not "
            "change what is measured, so no share of it can be restored. Choose another corruption or objective."
        )


def areas(fractions: Sequence[float], values: Values) -> dict[str, Values]:
    """``cpr`` and ``cmd`` as MIB integrates them, and as means over a logarithmic axis.

    Args:
        fractions: of all edges, rising.
        values: f per fraction, ``[..., fractions]``.
    """
    x, logs = np.asarray(fractions), np.log(fractions)
    span = logs[-1] - logs[0]
    lost = np.abs(1 - values)
    return {
        "cpr": np.trapezoid(values, x, axis=-1),
        "cmd": np.trapezoid(lost, x, axis=-1),
        "cpr_log": np.trapezoid(values, logs, axis=-1) / span,
        "cmd_log": np.trapezoid(lost, logs, axis=-1) / span,
    }


def curve(fractions: Sequence[float], circuits: Values, full: Values, empty: Values, *, seed: int) -> Curve:
    """Faithfulness over sizes, with paired bootstrap intervals.

    Args:
        fractions: of all edges, rising.
        circuits: objective per size and pair, ``[fractions, pairs]``.
        full: of the model, ``[pairs]``.
        empty: with all edges replaced, ``[pairs]``.
        seed: of the bootstrap.

    Raises:
        ExciseError: the model's value is that of the empty circuit.
    """
    refuse_no_gap(full, empty)
    found = faithfulness(circuits, full, empty)
    draws = np.random.default_rng(seed).integers(full.size, size=(RESAMPLES, full.size))
    resampled = faithfulness(circuits[:, draws], full[draws], empty[draws])  # [fractions, resamples]
    area = areas(fractions, found)
    resampled_areas = areas(fractions, resampled.T)
    return Curve(
        faithfulness=[float(value) for value in found],
        intervals=[interval(row) for row in resampled],
        areas={name: float(value) for name, value in area.items()},
        area_intervals={name: interval(value) for name, value in resampled_areas.items()},
    )


def difference(
    fractions: Sequence[float], first: Values, second: Values, full: Values, empty: Values, *, seed: int
) -> dict[str, tuple[float, float, float]]:
    """Areas of one method minus another's on the same pairs: value, and the ends of its bootstrap interval."""
    draws = np.random.default_rng(seed).integers(full.size, size=(RESAMPLES, full.size))
    result = {}
    both = [faithfulness(values, full, empty) for values in (first, second)]
    drawn = [faithfulness(values[:, draws], full[draws], empty[draws]).T for values in (first, second)]
    for name in areas(fractions, both[0]):
        value = float(areas(fractions, both[0])[name] - areas(fractions, both[1])[name])
        result[name] = (value, *interval(areas(fractions, drawn[0])[name] - areas(fractions, drawn[1])[name]))
    return result


def interval(values: Values) -> tuple[float, float]:
    """Percentile interval, 95 %."""
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)
