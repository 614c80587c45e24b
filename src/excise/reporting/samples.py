"""Pick generations to show: some at random, and those that changed most, so that nobody picks the nice ones."""

from collections.abc import Sequence

import numpy as np

from excise.artefacts import Json
from excise.errors import ExciseError

DRAWS = 3
"""Most continuations shown of a prompt."""


def pick(before: Sequence[Json], after: Sequence[Json], *, count: int, seed: int) -> list[Json]:
    """Prompts with continuations of both models.

    Args:
        before: generations of the unpruned model with ``score`` (``inputs.read_scored``).
        after: those of the variant.
        count: how many prompts: half at random, a quarter with the largest fall, a quarter with the largest rise of the
            mean score (fewer where fewer rise or fall).
        seed: seed of the random half.

    Raises:
        ExciseError: the two did not answer the same prompts.
    """
    first, second = _grouped(before), _grouped(after)
    if first.keys() != second.keys():
        raise ExciseError("report: the generations of the two models do not belong to the same prompts")
    ids = list(first)
    change = {key: _mean(second[key]) - _mean(first[key]) for key in ids}
    order = sorted(ids, key=lambda key: (change[key], str(key)))
    quarter = count // 4
    falls = [key for key in order[:quarter] if change[key] < 0]
    rises = [key for key in order[::-1][:quarter] if change[key] > 0]
    rest = [key for key in ids if key not in {*falls, *rises}]
    drawn = np.random.default_rng(seed).permutation(len(rest))[: count - 2 * quarter]
    groups = {
        "Drawn at random": [rest[index] for index in sorted(drawn.tolist())],
        "Largest falls": falls,
        "Largest rises": rises,
    }
    return [
        {
            "group": group,
            "id": key,
            "prompt": first[key][0]["prompt"],
            "mean_before": _mean(first[key]),
            "mean_after": _mean(second[key]),
            "before": first[key][:DRAWS],
            "after": second[key][:DRAWS],
        }
        for group, keys in groups.items()
        for key in keys
    ]


def _grouped(rows: Sequence[Json]) -> dict[object, list[Json]]:
    groups: dict[object, list[Json]] = {}
    for row in sorted(rows, key=lambda row: int(row["draw"])):
        groups.setdefault(row["id"], []).append(row)
    return {row["id"]: groups[row["id"]] for row in rows}


def _mean(rows: Sequence[Json]) -> float:
    return float(np.mean([row["score"] for row in rows]))
