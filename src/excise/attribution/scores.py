"""From sums to scores: means, standard errors, and the score of each seed."""

from collections.abc import Sequence
from pathlib import Path

from excise.artefacts import Array
from excise.attribution import Arrays, Measured
from excise.errors import ExciseError
from excise.models.units import Axis
from excise.statistics import ROWS


def unit_scores(method: Measured, totals: Sequence[Arrays], model_folder: Path, units: Axis) -> Arrays:
    """Pool the sums of several seeds and score the units.

    Args:
        method: the method that measured.
        totals: complete sums, one per seed.
        model_folder: the model that was measured.
        units: what is scored.

    Returns:
        ``score [layers, units]``, ``by_seed [seeds, layers, units]``, ``standard_error [layers, units]`` of the score
        where squares are summed and there are two samples or more, and rows ``NAME_rows`` of the method.

    Raises:
        ExciseError: a score is NaN or infinite; names the layer and the unit.
    """
    import numpy as np

    pooled = {
        name: sum((total[name] for total in totals[1:]), totals[0][name])
        for name in totals[0]
        if not name.endswith(ROWS)
    }
    scores = {
        "score": method.scores(means(pooled), model_folder, units),
        "by_seed": np.stack([method.scores(means(total), model_folder, units) for total in totals]),
    }
    for name in method.squares:
        if int(pooled["samples"]) >= 2:
            scores["standard_error"] = standard_error(
                pooled[name], pooled[f"{name}_squared"], samples=int(pooled["samples"])
            )
    for name in method.rows:
        scores[f"{name}{ROWS}"] = np.concatenate([total[f"{name}{ROWS}"] for total in totals])
    refuse_not_finite(scores["score"], units.unit)
    return scores


def means(sums: Arrays) -> Arrays:
    """Means over samples of everything that was summed."""
    samples = int(sums["samples"])
    return {name: value / samples for name, value in sums.items() if value.ndim == 2}


def standard_error(total: Array, squares: Array, *, samples: int) -> Array:
    """Standard error of the mean from the sum and the sum of squares: sqrt(unbiased variance / samples)."""
    import numpy as np

    mean = total / samples
    # Rounding can push the variance of a constant just below zero.
    variance = np.maximum((squares - samples * np.square(mean)) / (samples - 1), 0)
    return np.asarray(np.sqrt(variance / samples))


def refuse_not_finite(score: Array, unit: str) -> None:
    """Refuse NaN and infinity.

    Raises:
        ExciseError: there is one; names the layer and the unit.
    """
    import numpy as np

    bad = ~np.isfinite(score)
    if bad.any():
        layer, index = np.argwhere(bad)[0].tolist()
        raise ExciseError(
            f"the score of layer {layer}, {unit} {index} is {score[layer, index]} ({int(bad.sum())} of them); "
            "nothing was written. Check the statistics and the model's weights."
        )
