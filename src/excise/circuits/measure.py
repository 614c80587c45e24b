"""Scores of a set of pairs as sums that shards add up to exactly: per edge, per template, per bootstrap resample.

The tensors of an edge file, all float64, ``E`` = ``[sources, destinations]``:

- ``edges`` ``E``, ``edges_squared`` ``E``: sums over pairs of scores and of their squares;
- ``resampled`` ``[resamples, *E]`` and ``resampled_pairs`` ``[resamples]``: the same sums with each pair counted as
  often as a Poisson(1) draw of its own says, which depends on the seed and the pair's id alone (the Poisson bootstrap);
- ``by_template`` ``[templates, *E]`` and ``by_template_pairs`` ``[templates]``: the sums of each template's pairs.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from excise.artefacts import Json
from excise.circuits.batches import PairBatch
from excise.circuits.gradients import scoring
from excise.circuits.methods import Measured
from excise.circuits.objectives import refuse_flat
from excise.circuits.run import prepare
from excise.circuits.stream import Stream
from excise.errors import ExciseError
from excise.models.loading import input_device
from excise.progress import Progress
from excise.statistics import Statistics, Sums

MOST_TEMPLATES = 16
"""Sets with more templates have no sums by template: each costs as much as all scores."""


@dataclass(frozen=True)
class Options:
    """How edges are scored.

    Attributes:
        objective: one of ``objectives.OBJECTIVES``.
        ablation: one of ``run.ABLATIONS``.
        steps: inputs between the corrupted and the clean prompt, for ``eap-ig`` and ``relp-ig``.
        resamples: bootstrap resamples.
        seed: of the resamples.
    """

    objective: str = "logit-difference"
    ablation: str = "resample"
    steps: int = 5
    resamples: int = 8
    seed: int = 0


def check(method: Measured, options: Options) -> tuple[float, ...]:
    """Where gradients will be taken.

    Raises:
        ExciseError: the objective is flat there, or there is no way from the replacement to the clean prompt.
    """
    if options.steps < 1:
        raise ExciseError(f"--steps {options.steps}: must be at least 1")
    points = method.points(options.steps)
    refuse_flat(options.objective, points)
    if options.ablation != "resample" and any(point != 1 for point in points):
        raise ExciseError(
            f"--ablation {options.ablation}: this method goes from the corrupted prompt to the clean one, so it needs "
            "--ablation resample; or use a method that stays at the clean one (eap, relp-qk)"
        )
    return points


def measure(
    stream: Stream,
    method: Measured,
    batches: Sequence[PairBatch],
    part: range,
    *,
    options: Options,
    meta: Json,
    means: torch.Tensor | None = None,
) -> Statistics:
    """Score all edges on some of the batches of a set.

    Args:
        stream: the model.
        method: a module of ``circuits.methods``.
        batches: all batches of the set.
        part: which of them to score.
        options: how.
        meta: provenance of the result; its ``method`` names the progress bar.
        means: mean writes, where the ablation is ``mean``.

    Raises:
        ExciseError: a score is not finite, or every score of a pair is zero; names the pair.
    """
    points = check(method, options)
    statistics = Statistics(meta, len(batches))
    templates = template_names(batches)
    pairs = sum(len(batches[index].ids) for index in part)
    with (
        Progress(pairs, "pairs", meta["method"]) as progress,
        scoring(stream, objective=options.objective, points=points, rule=method.RULE) as scores_of,
    ):
        for index in part:
            batch = batches[index].to(input_device(stream.model))
            scores = scores_of(prepare(stream, batch, options.ablation, means))
            _check_scores(scores, batch)
            statistics.add(index, _sums(scores, batch, templates, options))
            progress.advance(len(batch.ids))
    return statistics


def template_names(batches: Sequence[PairBatch]) -> list[str]:
    """All templates of a set, sorted; none where there are more than ``MOST_TEMPLATES`` or just one."""
    names = sorted({template for batch in batches for template in batch.templates})
    return names if 1 < len(names) <= MOST_TEMPLATES else []


def _check_scores(scores: torch.Tensor, batch: PairBatch) -> None:
    for name, values in zip(batch.ids, scores, strict=True):
        if not torch.isfinite(values).all():
            raise ExciseError(f"pair {name!r}: a score is not a finite number. Use --dtype float32.")
        if not values.any():
            raise ExciseError(f"pair {name!r}: every score is zero: the objective does not depend on what was changed")


def _sums(scores: torch.Tensor, batch: PairBatch, templates: Sequence[str], options: Options) -> Sums:
    weights = resample_weights(batch.ids, options.resamples, options.seed)
    sums = {
        "edges": scores.sum(0),
        "edges_squared": scores.square().sum(0),
        "samples": torch.tensor(len(batch.ids)),
        "tokens": torch.tensor(batch.clean.numel()),
    }
    if options.resamples:
        sums |= {"resampled": torch.einsum("kb,bsd->ksd", weights, scores), "resampled_pairs": weights.sum(1)}
    if templates:
        member = torch.tensor(
            [[float(name == template) for name in batch.templates] for template in templates]
        ).double()
        sums |= {"by_template": torch.einsum("kb,bsd->ksd", member, scores), "by_template_pairs": member.sum(1)}
    return {name: value.cpu().numpy() for name, value in sums.items()}


def resample_weights(ids: Sequence[str], resamples: int, seed: int) -> torch.Tensor:
    """How often each pair counts in each bootstrap resample, float64 ``[resamples, pairs]``."""
    columns = []
    for name in ids:
        key = int.from_bytes(hashlib.sha256(f"{seed}\0{name}".encode()).digest()[:8])
        columns.append(np.random.default_rng(key).poisson(1.0, resamples))
    return torch.tensor(np.array(columns).T.reshape(resamples, len(ids)), dtype=torch.float64)
