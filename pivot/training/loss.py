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
    *,
    back: Tensor | None = None,
    clamp: float | None = None,
) -> Tensor:
    """Cross entropy of the scaled cosines between `a` and `b` (n, d), from a to b and from b to a.

    Each direction is a mean over the batch; `sum` adds the two (VIP-ANT's code),
    `mean` halves that (CLIP). The vectors may have any length: they are normalised here.
    `targets` (n, N) says how alike the pairs should be: a row weighs all b for one a, and need not
    sum to 1; `back` (n, N) does so for all a and one b, where None takes the columns of `targets`,
    normalised. Without targets it is the diagonal: a[i] and b[i] belong together and all others do
    not. With both of them `b` may have another number of rows than `a`.
    `clamp` is the largest logit (CLAP: 100); above it there is no gradient.
    `gather` lets the batch span all processes (N is the sum of their n, which may differ and be 0),
    with the gradient exact after the mean that data parallel training takes: the mean over the
    processes of what each returns is the loss of the whole batch. None: whenever there are some.
    Returns a 0-d tensor; raises ValueError for shapes that do not match.
    """
    free = targets is not None and back is not None
    if a.ndim != 2 or b.ndim != 2 or (a.shape[free:] != b.shape[free:]):
        raise ValueError(f"a and b must both be (n, d), not {tuple(a.shape)} and {tuple(b.shape)}")
    if reduction not in ("sum", "mean"):
        raise ValueError(f"reduction must be sum or mean, not {reduction!r}")
    with torch.autocast(a.device.type, enabled=False):
        a, b = _unit(a), _unit(b)
        if gather is None:
            gather = _processes() > 1
        sizes = [_sizes(x) if gather else [len(x)] for x in (a, b)]
        pairs = zip((a, b), sizes, strict=True)
        all_a, all_b = (_Gather.apply(x, n) if gather else x for x, n in pairs)
        forth, back = _targets(targets, back, sizes, a, gather)
        rows = [
            F.cross_entropy(_logits(scale, x, others, clamp), wanted, reduction="sum")
            for x, others, wanted in ((a, all_b, forth), (b, all_a, back))
        ]
        whole = [sum(n) for n in sizes]
        both = rows[0] + rows[1] * (whole[0] / whole[1])
        loss = both * len(sizes[0]) / whole[0]
    return loss if reduction == "sum" else loss / 2


def _unit(x: Tensor) -> Tensor:
    """Rows at length 1, in float32 at least."""
    return F.normalize(x if x.dtype == torch.float64 else x.float(), dim=-1)


def _logits(scale: Tensor | float, x: Tensor, others: Tensor, clamp: float | None) -> Tensor:
    logits = scale * x @ others.T
    return logits if clamp is None else logits.clamp(max=clamp)


def _targets(
    targets: Tensor | None,
    back: Tensor | None,
    sizes: list[list[int]],
    like: Tensor,
    gather: bool,
) -> tuple[Tensor, Tensor]:
    """What cross entropy should find in the local rows of both directions."""
    first = [_first_row(n) if gather else 0 for n in sizes]
    local = [n[dist.get_rank()] if gather else n[0] for n in sizes]
    whole = [sum(n) for n in sizes]
    if targets is None:
        if back is not None:
            raise ValueError("back needs targets too")
        diagonal = torch.arange(first[0], first[0] + local[0], device=like.device)
        return diagonal, diagonal
    for name, found, shape in (
        ("targets", targets, (local[0], whole[1])),
        ("back", back, (local[1], whole[0])),
    ):
        if found is not None and found.shape != shape:
            raise ValueError(f"{name} must be {shape}, not {tuple(found.shape)}")
    targets = targets.to(like)
    if back is not None:
        return targets, back.to(like)
    every = _all_gather(targets, sizes[0]) if gather else targets
    columns = every.T[first[0] : first[0] + local[0]]
    return targets, columns / columns.sum(1, keepdim=True).clamp_min(1e-12)


def gathered(x: Tensor) -> Tensor:
    """Rows of `x` (n, d) of all processes in the order of their ranks (N, d), without gradient."""
    return _all_gather(x.detach(), _sizes(x)) if _processes() > 1 else x


def own_rows(x: Tensor) -> slice:
    """Where the rows of `x` (n, d), of this process, lie in `gathered(x)`."""
    first = _first_row(_sizes(x)) if _processes() > 1 else 0
    return slice(first, first + len(x))


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
