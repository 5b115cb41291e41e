"""The one contrastive loss, its learnable scale, and the gather that spans processes.

Legend: N items of a batch (of all processes together when gathered), d dimensions of the space.
Everything is computed in float32 (or float64 when given), outside autocast: cosines times a scale
of 100 lose their last digits in bfloat16, and the loss costs nothing beside the encoder.

By hand: `scale = LogitScale(1 / 0.07)`, `loss = contrastive(a, b, scale())`, `loss.backward()`.
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
    `gather` lets the batch span all processes (N is the sum of their n, which may differ and be 0),
    with the gradient exact after the mean that data parallel training takes: the mean over the
    processes of what each returns is the loss of the whole batch. None: whenever there are some.
    Returns a 0-d tensor; raises ValueError for shapes that do not match.
    """
    if a.shape != b.shape or a.ndim != 2:
        raise ValueError(f"a and b must both be (n, d), not {tuple(a.shape)} and {tuple(b.shape)}")
    if reduction not in ("sum", "mean"):
        raise ValueError(f"reduction must be sum or mean, not {reduction!r}")
    with torch.autocast(a.device.type, enabled=False):
        a, b = _unit(a), _unit(b)
        if gather is None:
            gather = _processes() > 1
        sizes = _sizes(a) if gather else [len(a)]
        all_a, all_b = (_Gather.apply(x, sizes) for x in (a, b)) if gather else (a, b)
        forth, back = _targets(targets, sizes, a, gather)
        rows = [F.cross_entropy(scale * a @ all_b.T, forth, reduction="sum")]
        rows.append(F.cross_entropy(scale * b @ all_a.T, back, reduction="sum"))
        loss = (rows[0] + rows[1]) * len(sizes) / sum(sizes)
    return loss if reduction == "sum" else loss / 2


def _unit(x: Tensor) -> Tensor:
    """Rows at length 1, in float32 at least."""
    return F.normalize(x if x.dtype == torch.float64 else x.float(), dim=-1)


def _targets(
    targets: Tensor | None, sizes: list[int], like: Tensor, gather: bool
) -> tuple[Tensor, Tensor]:
    """What cross entropy should find in the local rows of both directions."""
    first, n, total = _first_row(sizes) if gather else 0, len(like), sum(sizes)
    if targets is None:
        diagonal = torch.arange(first, first + n, device=like.device)
        return diagonal, diagonal
    if targets.shape != (n, total):
        raise ValueError(f"targets must be ({n}, {total}), not {tuple(targets.shape)}")
    targets = targets.to(like)
    whole = _all_gather(targets, sizes) if gather else targets
    columns = whole.T[first : first + n]
    return targets, columns / columns.sum(1, keepdim=True).clamp_min(1e-12)


def _processes() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def _sizes(x: Tensor) -> list[int]:
    """Rows that each process has, by rank."""
    own = torch.tensor([len(x)], device=x.device)
    parts = [torch.empty_like(own) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, own)
    return [int(part) for part in parts]


def _first_row(sizes: list[int]) -> int:
    """Where the rows of this process begin among those of all."""
    return sum(sizes[: dist.get_rank()])


def _all_gather(x: Tensor, sizes: list[int]) -> Tensor:
    """Rows of all processes in the order of their ranks, filled up to one size on the way."""
    most = max(sizes)
    filled = F.pad(x, (0, 0, 0, most - len(x))).contiguous()
    parts = [torch.empty_like(filled) for _ in sizes]
    dist.all_gather(parts, filled)
    return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])


class _Gather(torch.autograd.Function):
    """all_gather whose gradient comes home: the sum over processes, cut to the local rows.

    With local rows of the logits this is exact after the mean over processes; a gather without
    gradient, or local rows without this one, is wrong (tested).
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, sizes: list[int]) -> Tensor:
        ctx.sizes, ctx.rows = sizes, len(x)
        return _all_gather(x, sizes)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        grad = grads[0].contiguous().clone()
        dist.all_reduce(grad)
        first = _first_row(ctx.sizes)
        return grad[first : first + ctx.rows], None


class LogitScale(nn.Module):
    """The scale of the cosines: the exponential of one learnt number, with an optional clamp.

    `LogitScale(1 / 0.07)` is the reference's: `log_scale` starts at 2.65926 and has no clamp.
    """

    def __init__(self, start: float, maximum: float | None = None, learn: bool = True) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(math.log(start)), requires_grad=learn)
        self.maximum = maximum

    def forward(self) -> Tensor:
        """The scale, a 0-d tensor; above the clamp its gradient is 0."""
        scale = self.log_scale.exp()
        return scale if self.maximum is None else scale.clamp(max=self.maximum)
