"""Run circuits on pairs: the objective of every pair, for one circuit or for a whole curve."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from excise.circuits.choose import top
from excise.circuits.objectives import value
from excise.circuits.run import Prepared, run_circuit
from excise.circuits.stream import Stream

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Ends:
    """The objective of every pair at both ends of the scale, ``[pairs]``: the model, and everything replaced."""

    full: Values
    empty: Values
    ids: list[str]


def values_of(stream: Stream, prepared: Sequence[Prepared], objective: str, kept: torch.Tensor) -> Values:
    """The objective of every pair when only ``kept`` carries the clean run, ``[pairs]``."""
    found = [
        value(objective, run_circuit(stream, one, kept), one.batch, one.clean_logits).double().cpu() for one in prepared
    ]
    return np.asarray(torch.cat(found).numpy())


def ends(stream: Stream, prepared: Sequence[Prepared], objective: str) -> Ends:
    """Both ends of the scale."""
    full = [value(objective, one.clean_logits, one.batch, one.clean_logits).double().cpu() for one in prepared]
    return Ends(
        full=np.asarray(torch.cat(full).numpy()),
        empty=values_of(stream, prepared, objective, torch.zeros_like(stream.graph.edges)),
        ids=[name for one in prepared for name in one.batch.ids],
    )


def along(
    stream: Stream,
    prepared: Sequence[Prepared],
    objective: str,
    scores: torch.Tensor,
    rank: str,
    fractions: Sequence[float],
    both: Ends,
) -> tuple[Values, list[int]]:
    """The objective of every pair for circuits of rising size, ``[fractions, pairs]``, and how many edges each has."""
    total = int(stream.graph.edges.sum())
    rows, sizes = [], []
    for fraction in fractions:
        kept = top(scores, stream.graph, int(fraction * total), rank)
        sizes.append(int(kept.sum()))
        if sizes[-1] == 0:
            rows.append(both.empty)
        elif sizes[-1] == total:
            rows.append(both.full)
        else:
            rows.append(values_of(stream, prepared, objective, kept))
    return np.stack(rows), sizes
