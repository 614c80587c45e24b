"""A trust region over the gates of units: the scales that lower a behaviour most at a stated cost in perplexity.

A gate scales a unit's activation, ``a -> (1 + d) a``: ``d = -1`` prunes it, ``-2`` reverses it, ``1`` doubles it. To
first order in ``d`` the log-probability of the target's tokens changes by ``b.d``; to second order the mean
log-likelihood of other text falls by ``d'Fd / 2`` nats per token, with ``F`` the Fisher information of the gates. So
the largest fall of the behaviour for a given rise of perplexity is a step of the natural gradient (Amari 1998; sized as
in trust-region policy optimisation, Schulman et al. 2015), here with bounds and for the N most useful units only.
With the gate gradients ``G = sum over tokens of a * dJ/da`` of a sample, for its scalar ``J``:

    b = mean of G over the target's samples,                 J = sum of log p(token) from target_start on
    A = [G1; G2 - mean of G2] / sqrt(2 x predicted tokens)   of the retained text's windows:
        G1: tokens drawn from the model (the true Fisher information), G2: the text's own tokens (the empirical one)
    F = A'A,   D = its diagonal plus the diagonal's median
    K = the N units with the largest |b| / sqrt(D) that the bounds let move;   d = clip(-b / (lambda D)) on K, else 0
    lambda: such that |A d|^2 / 2 = MARGIN x log(1 + budget)

The diagonal gives the direction, for the low-rank ``F`` overfits its few windows; the whole ``F`` gives the size. One
pass over the references, nothing iterated, no weight gradients. Positive ``b``: the unit serves the target.
"""

import contextlib
import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from excise.artefacts import Array
from excise.attribution import Arrays, Measure, Measured, Options, Values
from excise.errors import ExciseError
from excise.models.units import Axis

if TYPE_CHECKING:
    import torch

    from excise.attribution.batches import Batch

BOUNDS = (-1.0, 2.0)
"""Default bounds of a unit's scale, ``1 + d``: from reversed to doubled. ``(0, 1)`` cuts only."""

MARGIN = 0.9
"""Share of the budget that the step is sized for. The quadratic misses higher orders: a step predicted to cost 0.028
nats cost 0.031 on text that had no part in it."""

CHUNK = 256
"""Positions whose logits exist at one time."""


@contextlib.contextmanager
def measuring(model: Any, options: Options) -> Iterator[Measure]:
    """See ``excise.attribution``.

    Values, kept per sample: the gate gradients ``own`` and ``drawn``, float32, and ``predicted``, the number of tokens
    that they sum over, ``[samples, 1, 1]``.
    """
    from excise.attribution.backward import recomputing, relevances
    from excise.attribution.common import refuse_zero
    from excise.models.unpatched import assert_unpatched

    assert_unpatched(model)
    with recomputing(model, options.recompute):

        def measure(batch: "Batch") -> Values:
            own, drawn = relevances(
                model, batch, lambda hidden: log_likelihood_starts(model, hidden, batch), unit=options.unit
            )
            refuse_zero(own, batch)
            predicted = (batch.mask.sum(1) - batch.target_start).cpu().double()[:, None, None]
            # Per token a rounding of 1e-7, far below the noise between samples; float64 would double the file.
            return {"own": own.float(), "drawn": drawn.float(), "predicted": predicted}

        yield measure


def log_likelihood_starts(model: Any, hidden: "torch.Tensor", batch: "Batch") -> "Sequence[torch.Tensor]":
    """Gradients by the last hidden states of ``sum log p(token)``: of the sample's own tokens, and of drawn ones.

    Args:
        model: a causal language model.
        hidden: last hidden states ``[samples, tokens, hidden]``.
        batch: the batch.

    Returns:
        Two tensors like ``hidden``.
    """
    import torch

    from excise.attribution.backward import wide
    from excise.attribution.objectives import capped, continuation_positions, head, plain

    batch = batch.to(hidden.device)
    rows, columns = continuation_positions(batch)
    chance = uniforms(batch).to(hidden.device)
    starts = torch.zeros_like(hidden), torch.zeros_like(hidden)
    for chunk in torch.split(torch.arange(len(rows), device=hidden.device), CHUNK):
        row, column = rows[chunk], columns[chunk]
        states = hidden[row, column - 1].detach().requires_grad_()
        logits = capped(model, head(model)(states), plain)
        log_p = wide(logits).log_softmax(-1)
        tokens = batch.input_ids[row, column].to(log_p.device), drawn_tokens(log_p.detach(), chance[row, column])
        for start, token in zip(starts, tokens, strict=True):
            chosen = log_p.gather(-1, token[:, None]).sum()
            start[row, column - 1] = torch.autograd.grad(chosen, states, retain_graph=True)[0].to(start.dtype)
    return starts


def uniforms(batch: "Batch") -> "torch.Tensor":
    """One number per token from a stream of each sample's own, ``[samples, tokens]`` float64 on the CPU.

    So neither the batch nor the shard that a sample is in changes what is drawn for it.
    """
    import torch

    chance = torch.zeros(batch.mask.shape, dtype=torch.float64)
    for row, (name, length) in enumerate(zip(batch.ids, batch.mask.sum(1).tolist(), strict=True)):
        seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:7])
        generator = torch.Generator().manual_seed(seed)
        chance[row, :length] = torch.rand(length, generator=generator, dtype=torch.float64)
    return chance


def drawn_tokens(log_p: "torch.Tensor", chance: "torch.Tensor") -> "torch.Tensor":
    """A token per row from the whole distribution, by its inverse: ``[rows, vocabulary]``, ``[rows]`` -> ``[rows]``."""
    import torch

    precise = torch.float32 if log_p.device.type == "mps" else torch.float64
    cumulative = log_p.to(precise).exp().cumsum(-1)
    target = chance.to(cumulative)[:, None] * cumulative[:, -1:]
    return torch.searchsorted(cumulative, target, right=True)[:, 0].clamp(max=log_p.shape[-1] - 1)


def scores(means: Arrays, model_folder: Path, units: Axis) -> Array:  # noqa: ARG001 (the interface's)
    """Mean gate gradient of the log-likelihood of a set's own tokens: ``b`` where it is the target."""
    return means["own"]


def contrast(retain: Arrays, target: Arrays) -> tuple[Array, Array]:
    """(0, b / sqrt(D)): how much of the target a unit's gate carries per root of its cost.

    Their difference is most negative where pruning pays most; where it is positive, raising the unit pays.
    """
    import numpy as np

    _, metric = fisher(retain)
    efficiency = target["score"] / np.sqrt(metric)
    return np.zeros_like(efficiency), efficiency


def fisher(retain: Arrays) -> tuple[Array, Array]:
    """``A`` and ``D``: ``A'A`` is the Fisher information of the gates per token of the retained text.

    Args:
        retain: scores of that text: ``own_rows``, ``drawn_rows`` ``[windows, layers, units]`` and
            ``predicted_rows [windows, 1, 1]``.

    Returns:
        ``A [2 x windows, layers, units]`` float32; ``D [layers, units]`` float64, the diagonal plus its median, which
        keeps units that hardly ever fired in these windows from costing nothing.

    Raises:
        ExciseError: there are fewer than two windows, or half of the units or more have no gradient at all.
    """
    import numpy as np

    own, drawn, tokens = retain["own_rows"], retain["drawn_rows"], float(retain["predicted_rows"].sum())
    if len(own) < 2:
        raise ExciseError(f"{len(own)} window of the text to retain: give two or more; their spread is the cost")
    root = math.sqrt(2 * tokens)
    centred = own - own.mean(0, dtype=np.float64).astype(own.dtype)
    rows = np.concatenate([drawn / root, centred / root])
    diagonal = np.zeros(rows.shape[1:])
    for row in rows:  # one at a time: all of them in float64 need not fit
        diagonal += np.square(row, dtype=np.float64)
    median = np.median(diagonal)
    if median <= 0:
        raise ExciseError("half of the units or more have no gradient on the text to retain; give more windows")
    return rows, diagonal + median


@dataclass(frozen=True)
class Step:
    """A step within the trust region.

    Attributes:
        units: flat indices of the units that move, most useful first.
        scales: what each is scaled by, ``1 + d``, float64.
        cost: predicted rise of the log perplexity of the retained text, nats per token.
        gain: predicted fall of the mean log-probability of the target's tokens, nats.
    """

    units: Array
    scales: Array
    cost: float
    gain: float


def step(
    benefit: Array, rows: Array, metric: Array, *, count: int, budget: float, bounds: Sequence[float] = BOUNDS
) -> Step:
    """The scales that lower the target most within a budget; see the module.

    Args:
        benefit: ``b``, ``[layers, units]`` float64: the target's scores.
        rows: ``A``, as ``fisher`` gives it.
        metric: ``D``, as ``fisher`` gives it.
        count: how many units move.
        budget: rise of perplexity that may be spent, as a share (0.03 = 3 %).
        bounds: lowest and highest scale.

    Raises:
        ExciseError: the bounds do not contain 1, the budget is not above 0, or fewer than ``count`` units can move.
    """
    import numpy as np

    low, high = bounds[0] - 1, bounds[1] - 1
    if not (low <= 0 <= high and low < high and math.isfinite(high - low)):
        raise ExciseError(
            f"bounds {list(bounds)}: the lowest and the highest scale; 1 (untouched) must lie between them"
        )
    if not (budget > 0 and math.isfinite(budget)):
        raise ExciseError(f"budget {budget:g}: the rise of perplexity to spend, as a share above 0 (0.03 = 3 %)")
    b, cost_of = benefit.ravel(), metric.ravel()
    helps = ((b > 0) & (low < 0)) | ((b < 0) & (high > 0))
    useful = np.where(helps, np.abs(b) / np.sqrt(cost_of), 0)
    movable = int((useful > 0).sum())
    if not 0 < count <= movable:
        raise ExciseError(f"{count} units were asked for; the bounds {list(bounds)} let between 1 and {movable} move")
    chosen = np.argsort(-useful, kind="stable")[:count]
    direction = -b[chosen] / cost_of[chosen]
    block = rows.reshape(len(rows), -1)[:, chosen].astype(np.float64)

    def moved(size: float) -> Array:
        return np.clip(size * direction, low, high)

    def cost(size: float) -> float:
        return float(np.square(block @ moved(size)).sum() / 2)

    size = largest_within(cost, MARGIN * math.log1p(budget), start=1 / float(np.abs(direction).max()))
    d = moved(size)
    return Step(units=chosen, scales=1 + d, cost=cost(size), gain=float(-b[chosen] @ d))


def largest_within(cost: Callable[[float], float], allowed: float, *, start: float) -> float:
    """The size at which a cost that grows from 0 reaches ``allowed``, by bisection; the bounds' end if it never does.

    Args:
        cost: of a size above 0; continuous.
        allowed: what it may be, above 0.
        start: a size of the right order.
    """
    high = start
    for _ in range(64):
        if cost(high) >= allowed:
            break
        high *= 4
    else:
        return high  # every unit is at its bound
    low = 0.0
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if cost(middle) <= allowed else (low, middle)
    return low


METHOD = Measured(
    name="trust-region",
    label="scales that lower the target most within a budget of perplexity",
    needs="backward",
    measuring=measuring,
    scores=scores,
    contrast=contrast,
    rows=("own", "drawn", "predicted"),
)
