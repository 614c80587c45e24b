"""From sums to neuron scores: means, standard errors, and the score of each seed."""

from collections.abc import Sequence
from pathlib import Path

import torch

from excise.attribution import Measured, Values
from excise.errors import ExciseError
from excise.statistics import ROWS


def neuron_scores(method: Measured, totals: Sequence[Values], model_folder: Path) -> Values:
    """Pool the sums of several seeds and score the neurons.

    Args:
        method: a module of ``excise.attribution``.
        totals: complete sums, one a seed.
        model_folder: the model that was measured.

    Returns:
        ``score [layers, neurons]``, ``by_seed [seeds, layers, neurons]``, ``standard_error [layers, neurons]`` of the
        score where squares are summed and there are two samples or more, and rows ``NAME_rows`` of the method.

    Raises:
        ExciseError: a score is NaN or infinite; names the layer and the neuron.
    """
    pooled = {
        name: sum((total[name] for total in totals[1:]), totals[0][name])
        for name in totals[0]
        if not name.endswith(ROWS)
    }
    scores = {
        "score": method.neuron_scores(means(pooled), model_folder),
        "by_seed": torch.stack([method.neuron_scores(means(total), model_folder) for total in totals]),
    }
    for name in method.SQUARES:
        if int(pooled["samples"]) >= 2:
            scores["standard_error"] = standard_error(
                pooled[name], pooled[f"{name}_squared"], samples=int(pooled["samples"])
            )
    for name in method.ROWS:
        scores[f"{name}{ROWS}"] = torch.cat([total[f"{name}{ROWS}"] for total in totals])
    refuse_not_finite(scores["score"])
    return scores


def means(sums: Values) -> Values:
    """Means over samples of everything that was summed."""
    samples = int(sums["samples"])
    return {name: value / samples for name, value in sums.items() if value.ndim == 2}


def standard_error(total: torch.Tensor, squares: torch.Tensor, *, samples: int) -> torch.Tensor:
    """Standard error of the mean from the sum and the sum of squares: sqrt(unbiased variance / samples)."""
    mean = total / samples
    # Rounding can push the variance of a constant just below zero.
    variance = ((squares - samples * mean.square()) / (samples - 1)).clamp(min=0)
    return (variance / samples).sqrt()


def refuse_not_finite(score: torch.Tensor) -> None:
    """Refuse NaN and infinity.

    Raises:
        ExciseError: there is one; names the layer and the neuron.
    """
    bad = ~torch.isfinite(score)
    if bad.any():
        layer, neuron = bad.nonzero()[0].tolist()
        raise ExciseError(
            f"the score of layer {layer}, neuron {neuron} is {score[layer, neuron]} ({int(bad.sum())} such neurons); "
            "nothing was written. Check the statistics and the model's weights."
        )
