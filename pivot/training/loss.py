"""The one contrastive loss, its learnable scale, and the gather that spans processes.

Legend: N items of a batch (of all processes together when gathered), d dimensions of the space.
Everything is computed in float32 (or float64 when given), outside autocast: cosines times a scale
of 100 lose their last digits in bfloat16, and the loss costs nothing beside the encoder.

By hand: `scale = LogitScale(1 / 0.07)`, `loss = contrastive(a, b, scale())`, `loss.backward()`.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from pivot.settings import LossSettings
from pivot.training.gather import Gather, all_gather, first_row, rows_of_each
from pivot.training.gather import gathered as gathered
from pivot.training.gather import own_rows as own_rows
from pivot.training.processes import number_of_processes

TRANSFORM = 4202  # names the generator of a transform's first weights


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
    unit: tuple[bool, bool] = (True, True),
    weights: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """Cross entropy of the scaled cosines between `a` and `b` (n, d), from a to b and from b to a.

    Each direction is a mean over the batch; `sum` adds the two (VIP-ANT's code),
    `mean` halves that (CLIP). The vectors may have any length: they are normalised here, each side
    for which `unit` is true.
    `targets` (n, N) says how alike the pairs should be: a row weighs all b for one a, and need not
    sum to 1; `back` (n, N) does so for all a and one b, where None takes the columns of `targets`,
    normalised. Without targets it is the diagonal: a[i] and b[i] belong together and all others do
    not. With both of them `b` may have another number of rows than `a`.
    `clamp` is the largest logit (CLAP: 100); above it there is no gradient. `weights` says how much
    each row counts in the means, of a (n,) and of b (n,), with mean 1 over the whole batch, see
    `likeness_weights`.
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
        a, b = (_unit(x, wanted) for x, wanted in zip((a, b), unit, strict=True))
        if gather is None:
            gather = number_of_processes() > 1
        sizes = [rows_of_each(x) if gather else [len(x)] for x in (a, b)]
        pairs = zip((a, b), sizes, strict=True)
        all_a, all_b = (Gather.apply(x, n) if gather else x for x, n in pairs)
        forth, back = _targets(targets, back, sizes, a, gather)
        rows = [
            _summed(_logits(scale, x, others, clamp), wanted, weigh)
            for x, others, wanted, weigh in zip(
                (a, b), (all_b, all_a), (forth, back), weights or (None, None), strict=True
            )
        ]
        whole = [sum(n) for n in sizes]
        both = rows[0] + rows[1] * (whole[0] / whole[1])
        loss = both * len(sizes[0]) / whole[0]
    return loss if reduction == "sum" else loss / 2


def mlp_loss(
    a: Tensor,
    b: Tensor,
    a_mlp: Tensor,
    b_mlp: Tensor,
    scale_a: Tensor | float,
    scale_b: Tensor | float,
    kappa: float = 0.0,
    reduction: Literal["sum", "mean"] = "mean",
    gather: bool | None = None,
    *,
    targets: Tensor | None = None,
    back: Tensor | None = None,
    clamp: float | None = None,
    unit: tuple[bool, bool] = (True, True),
) -> Tensor:
    """LAION-CLAP's loss with transforms: each side meets what a small MLP makes of the other.

    The mean (`sum`: twice it) of four cross entropies: of scale_a (a . b_mlp) in both directions
    and of scale_b (a_mlp . b) in both. a and b (n, d) are normalised here where `unit` says so,
    a_mlp and b_mlp (n, d), the transforms of the unit vectors, are taken as they are. `kappa`
    weighs the items by `likeness_weights`, in the first two terms by those of a, in the others by
    those of b.
    The rest is as in `contrastive`.
    """
    of_a, of_b = (likeness_weights(x, kappa, gather) if kappa else None for x in (a, b))
    more: dict[str, Any] = {"targets": targets, "back": back, "clamp": clamp, "gather": gather}
    pairs = (
        contrastive(a, b_mlp, scale_a, reduction=reduction, unit=(unit[0], False),
                    weights=None if of_a is None else (of_a, of_a), **more),
        contrastive(a_mlp, b, scale_b, reduction=reduction, unit=(False, unit[1]),
                    weights=None if of_b is None else (of_b, of_b), **more),
    )  # fmt: skip
    return (pairs[0] + pairs[1]) / 2


def likeness_weights(x: Tensor, kappa: float, gather: bool | None = None) -> Tensor:
    """Weights (n,) of items that are like many others: exp(mean over j of cos(x_i, x_j) / kappa).

    x (n, d) of any length; kappa > 0: the smaller, the more they differ. Their mean over the whole
    batch is 1, as cross entropy with class weights divides by their sum. They have no gradient.
    LAION-CLAP's weighted loss (its code).
    """
    with torch.autocast(x.device.type, enabled=False), torch.no_grad():
        own = _unit(x)
        if gather is None:
            gather = number_of_processes() > 1
        sizes = rows_of_each(own) if gather else [len(own)]
        every = all_gather(own, sizes) if gather else own
        weights = ((every @ every.T).mean(1) / kappa).exp()
        first = first_row(sizes) if gather else 0
        return (weights / weights.mean())[first : first + len(own)]


def _unit(x: Tensor, wanted: bool = True) -> Tensor:
    """Rows at length 1 if `wanted`, in float32 at least."""
    x = x if x.dtype == torch.float64 else x.float()
    return F.normalize(x, dim=-1) if wanted else x


def _summed(logits: Tensor, wanted: Tensor, weigh: Tensor | None) -> Tensor:
    """Sum over the rows of their cross entropies, each times its weight."""
    if weigh is None:
        return F.cross_entropy(logits, wanted, reduction="sum")
    return (weigh * F.cross_entropy(logits, wanted, reduction="none")).sum()


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
    first = [first_row(n) if gather else 0 for n in sizes]
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
    every = all_gather(targets, sizes[0]) if gather else targets
    columns = every.T[first[0] : first[0] + local[0]]
    return targets, columns / columns.sum(1, keepdim=True).clamp_min(1e-12)


class Transform(nn.Module):
    """Small MLP on unit vectors that `mlp_loss` trains beside an encoder, not normalised after.

    Linear, ReLU, dropout 0.1, Linear, of one width (LAION-CLAP's audio_transform, text_transform);
    its first weights are torch's, by seed and side.
    """

    def __init__(self, dim: int, seed: int, side: str) -> None:
        super().__init__()
        key = [seed, TRANSFORM, int.from_bytes(side.encode(), "big")]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(np.random.default_rng(key).integers(2**62)))
            self.layers = nn.Sequential(
                nn.Linear(dim, dim), nn.ReLU(), nn.Dropout(0.1), nn.Linear(dim, dim)
            )

    def forward(self, x: Tensor) -> Tensor:
        """Features (n, dim) of any length, which are normalised first -> (n, dim)."""
        found: Tensor = self.layers(_unit(x))
        return found


class LogitScale(nn.Module):
    """The scale of the cosines: the exponential of one learnt number, with optional clamps.

    `LogitScale(1 / 0.07)` is the reference's: `log_scale` starts at 2.65926 and has no clamp.
    A clamp is of the scale as it is used, where beyond it there is no gradient, or with
    `after_step` of the learnt number itself, once a step was taken (`clamp_`), so that it comes
    back when the loss wants it to: LAION-CLAP's, between 1 and 100.
    """

    def __init__(
        self,
        start: float,
        maximum: float | None = None,
        learn: bool = True,
        minimum: float | None = None,
        after_step: bool = False,
    ) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(math.log(start)), requires_grad=learn)
        self.maximum, self.minimum, self.after_step = maximum, minimum, after_step

    @classmethod
    def of(cls, settings: LossSettings, start: float | None = None) -> LogitScale:
        """The scale that the settings of a loss say; start: None is theirs."""
        return cls(
            start or settings.scale_init,
            settings.scale_max,
            settings.learn_scale,
            settings.scale_min,
            settings.scale_clamp == "step",
        )

    def forward(self) -> Tensor:
        """The scale, a 0-d tensor."""
        scale = self.log_scale.exp()
        if self.after_step or (self.maximum is None and self.minimum is None):
            return scale
        return scale.clamp(self.minimum, self.maximum)

    @torch.no_grad()
    def clamp_(self) -> None:
        """Bring the learnt number back between the clamps, where they are of it."""
        if self.after_step:
            low, high = self.minimum, self.maximum
            self.log_scale.clamp_(
                -math.inf if low is None else math.log(low),
                math.inf if high is None else math.log(high),
            )
