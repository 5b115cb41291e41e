"""The one contrastive loss, its learnable scale, and the gather that spans processes.

Legend: N items of a batch (of all processes together when gathered), d dimensions of the space.
Everything is computed in float32 (or float64 when given), outside autocast: cosines times a scale
of 100 lose their last digits in bfloat16, and the loss costs nothing beside the encoder.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn


def contrastive(
    a: Tensor,
    b: Tensor,
    scale: Tensor | float,
    targets: Tensor | None = None,
    reduction: Literal["sum", "mean"] = "sum",
    gather: bool | None = None,
) -> Tensor:
    """Cross entropy of the scaled cosines between `a` and `b` (n, d), from a to b and from b to a.

    Each direction is a mean over the batch; `sum` adds the two (VIP-ANT's code),
    `mean` halves that (CLIP). The vectors may have any length: they are normalised here.
    `targets` (n, N) says how alike the pairs should be: a row is a distribution over all b for one
    a, and its columns, normalised, are those over all a for one b. None is the diagonal: a[i] and
    b[i] belong together and all others do not.
    `gather` lets the batch span all processes (N = n x processes, the same n in each), with the
    gradient exact after the mean that data parallel training takes; None: whenever there are some.
    """
    if a.shape != b.shape or a.ndim != 2:
        raise ValueError(f"a and b must both be (n, d), not {tuple(a.shape)} and {tuple(b.shape)}")
    if reduction not in ("sum", "mean"):
        raise ValueError(f"reduction must be sum or mean, not {reduction!r}")
    with torch.autocast(a.device.type, enabled=False):
        a, b = _unit(a), _unit(b)
        if gather is None:
            gather = _processes() > 1
        all_a, all_b = (_Gather.apply(a), _Gather.apply(b)) if gather else (a, b)
        first = dist.get_rank() * len(a) if gather else 0
        forth, back = _targets(targets, len(a), len(all_b), first, a, gather)
        loss = F.cross_entropy(scale * a @ all_b.T, forth)
        loss = loss + F.cross_entropy(scale * b @ all_a.T, back)
    return loss if reduction == "sum" else loss / 2


def _unit(x: Tensor) -> Tensor:
    """Rows at length 1, in float32 at least."""
    return F.normalize(x if x.dtype == torch.float64 else x.float(), dim=-1)


def _targets(
    targets: Tensor | None, n: int, total: int, first: int, like: Tensor, gather: bool
) -> tuple[Tensor, Tensor]:
    """What cross entropy should find in the local rows of both directions."""
    if targets is None:
        diagonal = torch.arange(first, first + n, device=like.device)
        return diagonal, diagonal
    if targets.shape != (n, total):
        raise ValueError(f"targets must be ({n}, {total}), not {tuple(targets.shape)}")
    targets = targets.to(like)
    whole = _all_gather(targets) if gather else targets
    columns = whole.T[first : first + n]
    return targets, columns / columns.sum(1, keepdim=True).clamp_min(1e-12)


def _processes() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def _all_gather(x: Tensor) -> Tensor:
    """Rows of all processes in the order of their ranks."""
    parts = [torch.empty_like(x) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, x.contiguous())
    return torch.cat(parts)


class _Gather(torch.autograd.Function):
    """all_gather whose gradient comes home: the sum over processes, cut to the local rows.

    With local rows of the logits this is exact after the mean over processes; a gather without
    gradient, or local rows without this one, is wrong (tested).
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.rows = len(x)
        return _all_gather(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        grad = grads[0].contiguous().clone()
        dist.all_reduce(grad)
        first = dist.get_rank() * ctx.rows
        return grad[first : first + ctx.rows]


class LogitScale(nn.Module):
    """The scale of the cosines: the exponential of one learnt number, with an optional clamp."""

    def __init__(self, start: float, maximum: float | None = None, learn: bool = True) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(math.log(start)), requires_grad=learn)
        self.maximum = maximum

    def forward(self) -> Tensor:
        """The scale, a 0-d tensor; above the clamp its gradient is 0."""
        scale = self.log_scale.exp()
        return scale if self.maximum is None else scale.clamp(max=self.maximum)
