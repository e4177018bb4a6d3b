"""Several processes that train one vocoder: who they are, and the mean of their gradients."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, distributed


@dataclass(frozen=True)
class Ranks:
    """This process among those of a training.

    Attributes:
        rank: 0 is the one that writes.
        world_size: number of processes.
    """

    rank: int = 0
    world_size: int = 1

    @property
    def main(self) -> bool:
        """Whether this process writes files and shows progress."""
        return self.rank == 0


ALONE = Ranks()
"""A single process."""


def join(device: torch.device) -> Ranks:
    """Join the processes that ``torchrun`` started; a process on its own where it did not."""
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    if world_size == 1:
        return ALONE
    if not distributed.is_initialized():
        distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return Ranks(distributed.get_rank(), distributed.get_world_size())


def leave() -> None:
    """End what :func:`join` began."""
    if distributed.is_initialized():
        distributed.destroy_process_group()


def average_gradients(parameters: Iterable[Tensor], ranks: Ranks) -> None:
    """Replace every gradient by its mean over the processes, in one exchange.

    A parameter without a gradient counts as zeros, on every process: all exchange the same number of values.
    """
    if ranks.world_size == 1:
        return
    parameters = list(parameters)
    flat = torch.cat([(p.grad if p.grad is not None else torch.zeros_like(p)).flatten() for p in parameters])
    distributed.all_reduce(flat)
    flat /= ranks.world_size
    start = 0
    for parameter in parameters:
        piece = flat[start : start + parameter.numel()].view_as(parameter)
        if parameter.grad is None:
            parameter.grad = piece.clone()
        else:
            parameter.grad.copy_(piece)
        start += parameter.numel()
