"""Train a smaller encoder to give the embeddings of the dense one: no labels, the structure stays as it is.

Everything depends on the number of the step alone (order of texts, learning rate), so a killed job goes on from its
last checkpoint to the same weights, bit for bit. Several processes share the texts of a step (``retrieval.team``):
the same sums in another order, so the same weights but for rounding.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from excise.artefacts import Json, read_tensors, write_tensors
from excise.errors import ExciseError
from excise.models.encoder import Encoder, forward, padded
from excise.models.parts import decoder_layers
from excise.progress import Progress
from excise.retrieval.team import ALONE, Team


@dataclass(frozen=True)
class Training:
    """How to train.

    Attributes:
        epochs: times that every text is seen.
        batch: texts of a step; all about equally long.
        rate: largest learning rate, after a twentieth of the steps; then it falls linearly to 0.
        score: weight of the term on scores (``loss_of``).
        contrastive: weight of the contrastive term.
        seed: of the order of the texts.
        every: steps between two checkpoints.
    """

    epochs: int = 3
    batch: int = 32
    rate: float = 5e-4
    score: float = 0.0
    contrastive: float = 0.0
    seed: int = 0
    every: int = 100

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            ExciseError: one is out of range.
        """
        if min(self.epochs, self.batch, self.every) < 1 or not self.rate > 0:
            raise ExciseError(f"training: epochs, batch, every and rate must be above 0, found {asdict(self)}")
        if not min(self.score, self.contrastive) >= 0:
            raise ExciseError(f"training: score and contrastive must be 0 or more, found {asdict(self)}")
        if self.batch == 1 and (self.score or self.contrastive):
            raise ExciseError("training: score and contrastive compare the texts of a step; batch must be 2 or more")


def order(lengths: Sequence[int], epoch: int, training: Training) -> list[list[int]]:
    """Places of the texts of each step of one epoch: equal lengths in a random order, batches in a random order."""
    generator = torch.Generator().manual_seed(training.seed * 1_000_003 + epoch)
    shuffled = torch.randperm(len(lengths), generator=generator).tolist()
    near = sorted(shuffled, key=lambda place: lengths[place])
    groups = [near[start : start + training.batch] for start in range(0, len(near), training.batch)]
    return [groups[place] for place in torch.randperm(len(groups), generator=generator).tolist()]


def rate_at(step: int, steps: int, training: Training) -> float:
    """Learning rate of a step: rising over a twentieth of them, then falling linearly."""
    warm = max(1, steps // 20)
    return training.rate * min((step + 1) / warm, (steps - step) / max(1, steps - warm + 1))


TEMPERATURE = 0.05
"""Cosines are divided by it before the softmax of the contrastive term, as retrievers are usually trained."""


def loss_of(vectors: Tensor, targets: Tensor, own: Sequence[int], training: Training) -> Tensor:
    """Loss of some texts of a step, summed over them.

    With s the student's embedding of a text, t its teacher's and T those of all texts of the step, each of length 1:
    1 - cos(s, t) + score x mean over T of (cos(s, T) - cos(t, T))^2 + contrastive x cross-entropy of t under
    softmax(cos(s, T) / 0.05). The first term is KALE's and LEAF's (arXiv 2304.01016, 2509.12539), the second matches
    scores as EmbedDistill does (arXiv 2301.12005), the third is InfoNCE with the teacher as the positive (arXiv
    1910.10699). All compare with teachers alone, so texts of a step can be divided between processes.

    Args:
        vectors: the student's embeddings, ``[texts, hidden]``.
        targets: the teacher's of all texts of the step, ``[batch, hidden]``.
        own: places of the texts in the step.
        training: weights of the terms.
    """
    wanted = torch.nn.functional.normalize(targets.to(vectors), dim=-1)
    found = torch.nn.functional.normalize(vectors, dim=-1)
    loss = (1 - (found * wanted[own]).sum(dim=-1)).sum()
    if training.score:
        loss = loss + training.score * (found @ wanted.T - wanted[own] @ wanted.T).square().mean(dim=-1).sum()
    if training.contrastive:
        places = torch.tensor(own, device=found.device)
        nearest = torch.nn.functional.cross_entropy(found @ wanted.T / TEMPERATURE, places, reduction="sum")
        loss = loss + training.contrastive * nearest
    return loss


def distil(
    student: Encoder,
    ids: Sequence[Sequence[int]],
    targets: Tensor,
    training: Training,
    *,
    checkpoint: Path,
    key: Json,
    team: Team = ALONE,
) -> list[float]:
    """Train the layers of a student, in place; embeddings of tokens stay as they are.

    The loss of a step is the mean of ``loss_of`` over its texts. AdamW, no dropout.

    Args:
        student: dense or cut.
        ids: token ids of the texts.
        targets: embeddings of the teacher, ``[texts, hidden]``.
        training: how.
        checkpoint: file that keeps the state of a run that is not finished.
        key: what a checkpoint must say to belong to this run.
        team: the processes that train together.

    Returns:
        The mean loss of each epoch that this call finished, over the steps that it made.

    Raises:
        ExciseError: the checkpoint belongs to another run, or the loss is not finite.
    """
    lengths = [len(one) for one in ids]
    per_epoch = len(order(lengths, 0, training))
    steps = per_epoch * training.epochs
    parameters = [parameter for layer in decoder_layers(student.model) for parameter in layer.parameters()]
    for parameter in parameters:
        parameter.requires_grad_(True)
    optimiser = torch.optim.AdamW(parameters, lr=training.rate, weight_decay=0.0)
    start = _resume(checkpoint, parameters, optimiser, key)
    team.check_same(start)
    losses: list[list[float]] = []
    with Progress(steps, "steps", "distilling") as progress:
        progress.advance(start)
        for step in range(start, steps):
            epoch, number = divmod(step, per_epoch)
            if number == 0 or step == start:
                batches = order(lengths, epoch, training)
                losses.append([])
            places = batches[number]
            optimiser.param_groups[0]["lr"] = rate_at(step, steps, training)
            texts = [ids[place] for place in places]
            losses[-1].append(_step(student, texts, targets[places], training, optimiser, team))
            if not math.isfinite(losses[-1][-1]):
                raise ExciseError(f"distillation: the loss is not finite at step {step}; lower --rate")
            progress.advance()
            if (step + 1) % training.every == 0 and step + 1 < steps and team.rank == 0:
                _keep(checkpoint, step + 1, parameters, optimiser, key)
    for parameter in parameters:
        parameter.requires_grad_(False)
    if team.rank == 0:
        checkpoint.unlink(missing_ok=True)
    return [sum(epoch) / len(epoch) for epoch in losses]


def _step(
    student: Encoder,
    ids: Sequence[Sequence[int]],
    targets: Tensor,
    training: Training,
    optimiser: torch.optim.Optimizer,
    team: Team,
) -> float:
    """One step on some texts, of which this process takes its part; the mean loss over all of them, before it."""
    optimiser.zero_grad()
    loss = 0.0
    if ours := team.part(range(len(ids))):
        vectors = forward(student, *padded(student, [ids[place] for place in ours]))
        share = loss_of(vectors, targets, ours, training) / len(ids)
        share.backward()  # type: ignore[no-untyped-call]
        loss = share.item()
    loss = team.add_up(optimiser.param_groups[0]["params"], loss)
    optimiser.step()
    return loss


_MOMENTS = ("exp_avg", "exp_avg_sq")


def _keep(path: Path, step: int, parameters: Sequence[Tensor], optimiser: torch.optim.Optimizer, key: Json) -> None:
    tensors = {f"{n}.weight": parameter.detach().cpu() for n, parameter in enumerate(parameters)}
    for n, parameter in enumerate(parameters):
        tensors |= {f"{n}.{name}": optimiser.state[parameter][name].cpu() for name in _MOMENTS}
    write_tensors(path, {"key": key, "step": step}, tensors)


def _resume(path: Path, parameters: Sequence[Tensor], optimiser: torch.optim.Optimizer, key: Json) -> int:
    """Put back what ``_keep`` kept; returns the step to go on with."""
    if not path.is_file():
        return 0
    meta, tensors = read_tensors(path)
    if meta["key"] != key:
        raise ExciseError(
            f"{path}: the checkpoint of another run (other inputs or settings); remove it, or finish that"
        )
    with torch.no_grad():
        for n, parameter in enumerate(parameters):
            parameter.copy_(tensors[f"{n}.weight"])
            kept = {name: tensors[f"{n}.{name}"].to(parameter.device) for name in _MOMENTS}
            optimiser.state[parameter] = {"step": torch.tensor(float(meta["step"])), **kept}
    return int(meta["step"])
