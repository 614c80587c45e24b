"""One job on several processes, as torchrun starts them: each takes a part of every step, and gradients are summed."""

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, distributed

from excise.errors import ExciseError


@dataclass(frozen=True)
class Team:
    """The processes that train together.

    Attributes:
        rank: which one this is; the first, 0, writes.
        size: how many there are.
    """

    rank: int = 0
    size: int = 1

    def part(self, places: Sequence[int]) -> list[int]:
        """This process's places of a step; none where there are fewer than processes."""
        return list(places[self.rank :: self.size])

    def add_up(self, parameters: Sequence[Tensor], loss: float) -> float:
        """Replace each gradient by its sum over all processes, and return that of the loss."""
        if self.size == 1:
            return loss
        gradients = [torch.zeros_like(one) if one.grad is None else one.grad for one in parameters]
        flat = torch.cat([*(one.flatten() for one in gradients), gradients[0].new_tensor([loss])])
        distributed.all_reduce(flat)
        for parameter, total in zip(
            parameters, torch.split(flat, [*(one.numel() for one in parameters), 1]), strict=False
        ):
            parameter.grad = total.view_as(parameter)
        return float(flat[-1])

    def check_same(self, step: int) -> None:
        """All go on from the same step.

        Raises:
            ExciseError: they do not.
        """
        if self.size == 1:
            return
        steps: list[int] = [0] * self.size
        distributed.all_gather_object(steps, step)
        if len(set(steps)) > 1:
            raise ExciseError(
                f"the processes would go on from different steps ({steps}): they do not see the same checkpoint; "
                "write to a folder that all of them share"
            )


ALONE = Team()
"""One process, which takes all of every step."""


@contextlib.contextmanager
def joined(device: str) -> Iterator[tuple[Team, str]]:
    """This process's team and its device: alone, and the device asked for, where torchrun did not start it.

    Args:
        device: what was asked for, resolved: ``cpu``, ``cuda``.
    """
    if not distributed.is_torchelastic_launched():
        yield ALONE, device
        return
    on_gpu = torch.device(device).type == "cuda"
    distributed.init_process_group("nccl" if on_gpu else "gloo")
    try:
        yield (
            Team(distributed.get_rank(), distributed.get_world_size()),
            f"cuda:{os.environ['LOCAL_RANK']}" if on_gpu else device,
        )
    finally:
        distributed.destroy_process_group()
