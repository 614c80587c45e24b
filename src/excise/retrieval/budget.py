"""Which units stay within a budget of measured time: a table of times of this machine, and the best choice in it.

A unit is worth what its score says, and costs what its layer takes longer with it. Every layer may keep any of the
timed numbers of neurons and heads; the numbers are chosen together, by dynamic programming over the time that is saved,
as in ZipLM (Kurtic et al. 2023, arXiv 2302.04089), whose errors are scores here.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression
from torch import Tensor

from excise.artefacts import Json
from excise.errors import ExciseError
from excise.models.encoder import Encoder
from excise.models.structure import Layer, Structure
from excise.retrieval.latency import SHAPES, measure
from excise.retrieval.moments import KINDS
from excise.retrieval.selection import least
from excise.retrieval.shrinking import shrink

STEPS = 12
"""Numbers of units that are timed: all numbers of heads up to so many, else evenly spaced ones."""

BINS = 2_000
"""Parts that the time to save is divided into; what an option saves is rounded down to whole ones."""

ALIKE = 4
"""Encoders that are cut alike in all layers: to the least units, a quarter, a half and three quarters of the steps."""

SHAPE = SHAPES[1]


def numbers(kind: str, width: int) -> list[int]:
    """How many units of a kind a layer may keep, ascending; the last one is all."""
    floor = least(kind, width)
    return sorted({max(floor, math.ceil(width * step / STEPS)) for step in range(1, STEPS + 1)} | {floor})


def latencies(dense: Encoder, *, rounds: int) -> Json:
    """Milliseconds that one layer saves on a batch of documents with fewer units of a kind.

    Encoders of one layer take turns, one for each number of units: a machine that is busier for a while slows all of
    them. Of two numbers the smaller one never saves less. With them run whole encoders, dense and cut alike in all
    layers: what savings come to together is measured, not their sum.

    Args:
        dense: a dense encoder.
        rounds: timed passes of each.

    Returns:
        ``{"shape": [texts, tokens], "dense": milliseconds of the dense encoder, "saved": {kind: [[units, milliseconds],
        ...]}, "together": [[sum of what units save, what they save], ...]}``, units and sums ascending.
    """
    shape, config = SHAPE, dense.model.config
    depth = int(config.num_hidden_layers)
    whole = {"neurons": int(config.intermediate_size), "heads": int(config.num_attention_heads)}
    timed = {kind: numbers(kind, width) for kind, width in whole.items()}
    alike = [
        {kind: counts[len(counts) * part // ALIKE] for kind, counts in timed.items()} for part in reversed(range(ALIKE))
    ]

    def of(layers: int, **counts: int) -> Encoder:
        stay = {kind: tuple(range(counts.get(kind, width))) for kind, width in whole.items()}
        rows = tuple(Layer(layer, stay["heads"], stay["neurons"]) for layer in range(layers))
        part = shrink(dense, Structure(rows, whole["heads"], whole["neurons"]), repair="none", texts=[])
        part.model.set_input_embeddings(dense.model.get_input_embeddings())  # one table for all of them
        return part

    encoders = {"dense": dense}
    encoders |= {f"{count} {kind}": of(1, **{kind: count}) for kind, counts in timed.items() for count in counts}
    encoders |= {f"alike {place}": of(depth, **counts) for place, counts in enumerate(alike)}
    times = measure(encoders, rounds=rounds, shapes=[shape])[f"{shape[0]}x{shape[1]}"]
    costs = dict(zip(times, steady([each["rounds"] for each in times.values()]), strict=True))
    saved = {}
    for kind, counts in timed.items():
        taken = isotonic_regression([costs[f"{count} {kind}"] for count in counts]).x
        saved[kind] = {count: float(taken[-1] - each) for count, each in zip(counts, taken, strict=True)}
    sums = [depth * sum(saved[kind][count] for kind, count in counts.items()) for counts in alike]
    truly = isotonic_regression([costs["dense"] - costs[f"alike {place}"] for place in range(ALIKE)]).x.clip(min=0)
    return {
        "shape": list(shape),
        "dense": costs["dense"],
        "saved": {kind: [list(row) for row in rows.items()] for kind, rows in saved.items()},
        "together": [[0.0, 0.0], *([total, float(each)] for total, each in zip(sums, truly, strict=True))],
    }


def steady(times: Sequence[Sequence[float]]) -> list[float]:
    """What each encoder takes if no round is slower than another: the median of its shares of the rounds.

    Args:
        times: ``[encoders, rounds]``.
    """
    table = np.array(times)
    shares = table / table.sum(0)
    return [float(each) for each in np.median(shares, 1) * np.median(table.sum(0))]


def within(scores: Mapping[str, Tensor], table: Json, share: float) -> Structure:
    """The units that stay so that documents take a share of the dense encoder's time, and the least score goes.

    Args:
        scores: of ``importance``, ``[layers, units]`` for each kind, by a method of ``config.retrieval.IN_ONE_UNIT``.
        table: of ``latencies``.
        share: of the dense encoder's time, above 0 and below 1.

    Raises:
        ExciseError: the share is out of range, or cannot be reached by removing neurons and heads.
    """
    if not 0 < share < 1:
        raise ExciseError(f"--time {share}: the share of the dense encoder's time must be above 0 and below 1")
    goal = table["dense"] * (1 - share)
    sums, truly = np.array(table["together"]).T
    groups = [(kind, layer) for kind in KINDS for layer in range(len(scores[kind]))]
    options = [_options(scores[kind][layer], table["saved"][kind], kind) for kind, layer in groups]
    wanted = float(np.interp(goal, truly, sums))
    reached = goal <= truly[-1] and wanted > 0
    chosen = _cheapest([(saved, lost) for _, saved, lost in options], wanted) if reached else None
    if chosen is None:
        left = 1 - truly[-1] / table["dense"]
        raise ExciseError(
            f"--time {share}: with the fewest neurons and heads documents still take {left:.2f} "
            "of the dense encoder's time; allow more, or drop layers (--keep-layers)"
        )
    stays: dict[str, list[tuple[int, ...]]] = {kind: [] for kind in KINDS}
    for (kind, layer), (counts, _, _), place in zip(groups, options, chosen, strict=True):
        best = scores[kind][layer].sort(descending=True, stable=True).indices[: counts[place]]
        stays[kind].append(tuple(sorted(best.tolist())))
    rows = tuple(Layer(layer, stays["heads"][layer], stays["neurons"][layer]) for layer in range(len(stays["heads"])))
    return Structure(rows, scores["heads"].shape[1], scores["neurons"].shape[1])


Numbers = NDArray[np.float64]


def _options(scores: Tensor, saved: Sequence[Sequence[float]], kind: str) -> tuple[list[int], Numbers, Numbers]:
    """(units that stay, milliseconds saved, score lost) of a layer, fewest units first.

    Raises:
        ExciseError: the table is of another encoder.
    """
    counts = [int(count) for count, _ in saved]
    if counts != numbers(kind, len(scores)):
        raise ExciseError(f"--latency: it times {kind} of an encoder with {counts[-1]} a layer, not {len(scores)}")
    ordered = np.concatenate([[0.0], np.cumsum(np.sort(scores.double().numpy()))])
    lost = ordered[[len(scores) - count for count in counts]]
    return counts, np.array([each for _, each in saved]), lost


def _cheapest(groups: Sequence[tuple[Numbers, Numbers]], goal: float) -> list[int] | None:
    """The option of each group so that the savings add up to the goal and the least is lost; None: none do.

    Args:
        groups: what each option saves and loses.
        goal: what must be saved, in all.
    """
    lost = np.full(BINS + 1, np.inf)
    lost[0] = 0.0  # by what is saved so far, in bins; the last one is the goal or more
    steps = []
    for saved, losing in groups:
        after, option = np.full(BINS + 1, np.inf), np.zeros(BINS + 1, np.int64)
        before = np.zeros(BINS + 1, np.int64)
        for number, (step, loss) in enumerate(zip(np.floor(saved / goal * BINS).astype(int), losing, strict=True)):
            step = min(int(step), BINS)
            origin = np.arange(BINS + 1) - step
            origin[BINS] = BINS - step + int(lost[BINS - step :].argmin())
            total = np.where(origin >= 0, lost[origin] + loss, np.inf)
            better = total < after
            after[better], option[better], before[better] = total[better], number, origin[better]
        steps.append((option, before))
        lost = after
    if not np.isfinite(lost[BINS]):
        return None
    chosen, at = [], BINS
    for option, before in reversed(steps):
        chosen.append(int(option[at]))
        at = int(before[at])
    return chosen[::-1]
