"""Rows of all processes in one tensor, with a gradient that is exact in data parallel training."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from pivot.training.processes import number_of_processes


def gathered(x: Tensor) -> Tensor:
    """Rows of `x` (n, d) of all processes in the order of their ranks (N, d), without gradient."""
    return all_gather(x.detach(), rows_of_each(x)) if number_of_processes() > 1 else x


def own_rows(x: Tensor) -> slice:
    """Where the rows of `x` (n, d), of this process, lie in `gathered(x)`."""
    first = first_row(rows_of_each(x)) if number_of_processes() > 1 else 0
    return slice(first, first + len(x))


def rows_of_each(x: Tensor) -> list[int]:
    """Rows that each process has, by rank."""
    own = torch.tensor([len(x)], device=x.device)
    parts = [torch.empty_like(own) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, own)
    return [int(part) for part in parts]


def first_row(sizes: list[int]) -> int:
    """Where the rows of this process begin among those of all."""
    return sum(sizes[: dist.get_rank()])


def all_gather(x: Tensor, sizes: list[int]) -> Tensor:
    """Rows of all processes in the order of their ranks, filled up to one size on the way."""
    most = max(sizes)
    filled = F.pad(x, (0, 0, 0, most - len(x))).contiguous()
    parts = [torch.empty_like(filled) for _ in sizes]
    dist.all_gather(parts, filled)
    return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])


class Gather(torch.autograd.Function):
    """all_gather whose gradient comes home: the sum over processes, cut to the local rows.

    With local rows of the logits this is exact after the mean over processes; a gather without
    gradient, or local rows without this one, is wrong (tested).
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, sizes: list[int]) -> Tensor:
        """Rows of all processes (N, d); `sizes` are those of `rows_of_each`."""
        ctx.sizes, ctx.rows = sizes, len(x)
        return all_gather(x, sizes)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        """Sum over the processes of what they want of the rows of this one."""
        grad = grads[0].contiguous().clone()
        dist.all_reduce(grad)
        first = first_row(ctx.sizes)
        return grad[first : first + ctx.rows], None
