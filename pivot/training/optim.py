"""Optimisers (LARS, Adam, AdamW, Muon), and which parameter gets which rate.

torch and timm have Muon too, but both orthogonalise one matrix after the other in bfloat16: on a
CPU without bfloat16 units a step of a 0.6 M parameter ViT costs 500 ms so (measured), here 28 ms.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw

from pivot.settings import AdamSettings, AdamWSettings, LarsSettings, MuonSettings

Named = Iterable[tuple[str, nn.Parameter]]
# Coefficients of the quintic Newton-Schulz iteration: K. Jordan, "Muon", 2024.
QUINTIC = (3.4445, -4.7750, 2.0315)
# Names of weights in the blocks of a transformer: CLIP's, timm's, transformers'.
IN_BLOCKS = re.compile(r"(^|\.)(resblocks|blocks|layers?)\.\d+\..*weight$")


def build_optimizer(
    named: Named,
    settings: LarsSettings | AdamSettings | AdamWSettings | MuonSettings,
    batch_size: int,
    half: bool = False,
    factor: Callable[[str], float] | None = None,
) -> torch.optim.Optimizer:
    """Optimiser over the named parameters that train, its groups with `name` and `peak_lr`.

    `batch_size` is the effective one (LARS rates are for 256); `half` lets Muon iterate in
    bfloat16, for a training whose products are bfloat16 anyway. `factor` of a parameter's name
    multiplies its rate: groups are split by it. Muon's matrices are those of a transformer's blocks
    (CLIP's, timm's and transformers' names).
    By hand: `opt = build_optimizer([*encoder.named_parameters(), *scale.named_parameters()],
    LarsSettings(), 432)`; then for each step `set_rates(opt, plan.share(step))`, `opt.zero_grad()`,
    `loss.backward()`, `opt.step()`, with `plan = Schedule(steps, warmup, final)`.
    """
    trained = [(name, p) for name, p in named if p.requires_grad]
    weights = [p for _, p in trained if p.ndim > 1]
    rest = [p for _, p in trained if p.ndim < 2]
    if settings.kind == "lars":
        share = batch_size / 256
        groups = [
            _group("weights", weights, settings.lr_weight * share, settings.weight_decay),
            _group("biases", rest, settings.lr_bias * share, 0.0),
        ]
        return Lars(_split(groups, trained, factor), settings.momentum, settings.eta)
    if isinstance(settings, AdamSettings | AdamWSettings):
        kind = torch.optim.Adam if settings.kind == "adam" else torch.optim.AdamW
        groups = [
            _group("weights", weights, settings.lr, settings.weight_decay),
            _group("biases", rest, settings.lr, 0.0),
        ]
        return kind(_split(groups, trained, factor), betas=settings.betas)
    matrices = [p for name, p in trained if p.ndim == 2 and IN_BLOCKS.search(name)]
    taken = {id(p) for p in matrices}
    others = [p for _, p in trained if id(p) not in taken]
    groups = [
        _group("matrices", matrices, settings.lr, settings.weight_decay) | {"matrices": True},
        _group("rest", others, settings.adamw_lr, 0.0) | {"matrices": False},
    ]
    return Muon(_split(groups, trained, factor), settings.momentum, half)


def _group(name: str, params: list[nn.Parameter], rate: float, decay: float) -> dict[str, Any]:
    return {"name": name, "params": params, "lr": rate, "peak_lr": rate, "weight_decay": decay}


def _split(
    groups: list[dict[str, Any]],
    trained: list[tuple[str, nn.Parameter]],
    factor: Callable[[str], float] | None,
) -> list[dict[str, Any]]:
    """Groups that have parameters, each cut into one group a factor."""
    factors = {id(p): factor(name) if factor else 1.0 for name, p in trained}
    found = []
    for group in groups:
        for value in dict.fromkeys(factors[id(p)] for p in group["params"]):
            name = group["name"] if value == 1 else f"{group['name']} x {value:g}"
            rate = group["peak_lr"] * value
            params = [p for p in group["params"] if factors[id(p)] == value]
            found.append(group | {"name": name, "params": params, "lr": rate, "peak_lr": rate})
    return found


def set_rates(optimizer: torch.optim.Optimizer, share: float) -> dict[str, float]:
    """Set every group to `share` of its peak rate; returns group name -> rate."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak_lr"] * share
    return {group["name"]: group["lr"] for group in optimizer.param_groups}


def describe(optimizer: torch.optim.Optimizer) -> list[str]:
    """One row a group: its name, tensors, values, peak rate and weight decay."""
    return [
        f"{group['name']:<9}{len(group['params']):>5} tensors"
        f"{sum(p.numel() for p in group['params']):>13,} values"
        f"   peak rate {group['peak_lr']:.4g}   weight decay {group['weight_decay']:.4g}"
        for group in optimizer.param_groups
    ]


def peak_rates(optimizer: torch.optim.Optimizer) -> dict[str, float]:
    """Group name -> peak rate."""
    return {group["name"]: group["peak_lr"] for group in optimizer.param_groups}


class Lars(torch.optim.Optimizer):
    """LARS as VIP-ANT trains (its code, module/lars.py): trust ratio for tensors with > 1 axis.

    d = g + decay p, times eta |p| / |d| (1 when either is 0); with fewer axes d = g.
    mu = momentum mu + d; p = p - lr mu: the rate stays outside the momentum.
    """

    def __init__(self, groups: Any, momentum: float = 0.9, eta: float = 0.001) -> None:
        super().__init__(groups, {"momentum": momentum, "eta": eta, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step of every parameter that has a gradient; returns the closure's loss."""
        loss = _evaluate(closure)
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                d = self._direction(p, group) if p.ndim > 1 else p.grad
                momentum = self.state[p].setdefault("momentum", torch.zeros_like(p))
                momentum.mul_(group["momentum"]).add_(d)
                p.sub_(group["lr"] * momentum)
        return loss

    @staticmethod
    def _direction(p: Tensor, group: dict[str, Any]) -> Tensor:
        d = p.grad + group["weight_decay"] * p
        length, of_step = p.norm(), d.norm()
        usable = (length > 0) & (of_step > 0)
        ratio = torch.where(usable, group["eta"] * length / of_step, torch.ones_like(length))
        return d * ratio


class Muon(torch.optim.Optimizer):
    """Orthogonalised momentum for groups with `matrices`, AdamW for the others; one state.

    m = momentum m + g; d = g + momentum m (Nesterov); p = p (1 - lr decay) - lr f O(d), with O the
    nearest half-orthogonal matrix and f = sqrt(max(1, rows / columns)) (K. Jordan, 2024).
    """

    def __init__(self, groups: Any, momentum: float = 0.95, half: bool = False) -> None:
        defaults = {"momentum": momentum, "betas": (0.9, 0.98), "eps": 1e-8, "matrices": False}
        super().__init__(groups, defaults | {"weight_decay": 0.0})
        self.half = half

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step of every parameter that has a gradient; returns the closure's loss."""
        loss = _evaluate(closure)
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            if group["matrices"]:
                for shape in dict.fromkeys(p.shape for p in params):
                    self._matrices([p for p in params if p.shape == shape], group)
            elif params:
                self._adamw(params, group)
        return loss

    def _matrices(self, params: list[Tensor], group: dict[str, Any]) -> None:
        """Step all matrices of one shape together: few large products instead of many small."""
        grads = [_grad(p) for p in params]
        momenta = [self.state[p].setdefault("momentum", torch.zeros_like(p)) for p in params]
        torch._foreach_mul_(momenta, group["momentum"])
        torch._foreach_add_(momenta, grads)
        ahead = torch._foreach_add(grads, momenta, alpha=group["momentum"])
        steps = orthogonal(torch.stack(ahead), torch.bfloat16 if self.half else torch.float32)
        rows, columns = params[0].shape
        factor = max(1.0, rows / columns) ** 0.5
        torch._foreach_mul_(params, 1 - group["lr"] * group["weight_decay"])
        torch._foreach_add_(params, list(steps.to(params[0])), alpha=-group["lr"] * factor)

    def _adamw(self, params: list[Tensor], group: dict[str, Any]) -> None:
        for p in params:
            if not self.state[p]:
                self.state[p].update(
                    step=torch.tensor(0.0),
                    exp_avg=torch.zeros_like(p),
                    exp_avg_sq=torch.zeros_like(p),
                )
        states = [self.state[p] for p in params]
        adamw(
            params,
            [_grad(p) for p in params],
            [s["exp_avg"] for s in states],
            [s["exp_avg_sq"] for s in states],
            [],
            [s["step"] for s in states],
            amsgrad=False,
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=False,
        )


def orthogonal(x: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Nearly the nearest half-orthogonal matrices to `x` (n, rows, columns): U V^T of the SVD.

    Five quintic Newton-Schulz steps bring every singular value that is not tiny into 0.7-1.2.
    """
    tall = x.shape[-2] > x.shape[-1]
    y = (x.mT if tall else x).to(dtype)
    y = y / y.norm(dim=(-2, -1), keepdim=True).clamp_min(1e-7)
    a, b, c = QUINTIC
    for _ in range(5):
        gram = y @ y.mT
        y = a * y + (b * gram + c * (gram @ gram)) @ y
    return y.mT if tall else y


def _grad(p: Tensor) -> Tensor:
    assert p.grad is not None
    return p.grad


def _evaluate(closure: Callable[[], Any] | None) -> Any:
    if closure is None:
        return None
    with torch.enable_grad():
        return closure()
