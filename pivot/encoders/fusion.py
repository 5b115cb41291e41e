"""How two maps of one sound become one: attentional feature fusion, as LAION-CLAP has it.

x is the map of the shrunk whole of a longer sound and r that of its windows; both are (B, C, T)
for the 1D kinds and (B, C, H, W) for the 2D kinds, and so is what they become. The attention is
a = sigmoid(local(x + r) + global(x + r)), one share for each number of the map.

    daf             x + r
    aff             2 x a + 2 r (1 - a); the factor 2 is of LAION's code, the paper has none
    iaff            z = x a + r (1 - a), then x b + r (1 - b) with b = sigmoid(local2(z) +
                    global(z)): LAION's code asks the first global branch again
    iaff_textbook   the same with b = sigmoid(local2(z) + global2(z)), as in the paper
Names of weights are LAION's: local_att, global_att, local_att2, global_att2.
Source: Dai et al., Attentional Feature Fusion (WACV 2021), and LAION-CLAP.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pivot.errors import ModelError

KINDS = [
    f"{name}_{sides}{version}"
    for sides in ("1d", "2d")
    for name, version in (("aff", ""), ("iaff", ""), ("iaff", "_textbook"), ("daf", ""))
]


def fusion_module(kind: str, channels: int, r: int = 4) -> Fusion:
    """Module (x, r) -> fused, each (B, channels, ...) with one side (1D) or two (2D).

    `kind` is aff_2d, iaff_2d, iaff_2d_textbook, daf_2d or the same with 1d; the branches have
    `channels // r` channels inside. ModelError for another kind, or for no channel inside.
    """
    if kind not in KINDS:
        raise ModelError(f"no fusion module of kind {kind!r}; there are: {', '.join(KINDS)}")
    if channels // r < 1:
        raise ModelError(f"fusion of {channels} channels needs r of at most {channels}, not {r}")
    name, sides, *textbook = kind.split("_")
    if name == "daf":
        return Daf()
    if name == "aff":
        return Aff(sides, channels, r)
    return IterativeAff(sides, channels, r, reuse=not textbook)


def no_gradient(module: nn.Module) -> Tensor:
    """Zero, 0-d, that gives every parameter of `module` a gradient of zeros.

    Processes that train together wait for the gradient of each parameter, also of one that a batch
    does not need.
    """
    return torch.stack([0.0 * p.sum() for p in module.parameters()] or [torch.zeros(())]).sum()


class Fusion(nn.Module):
    """Two maps of the same shape to one, (B, C, T) or (B, C, H, W)."""

    def forward(self, x: Tensor, r: Tensor) -> Tensor:
        """Fuse x and r; in training one sound alone is fused twice and kept once.

        The global branch pools a sound to one value a channel, of which batch norm needs two.
        """
        if self.training and len(x) == 1:
            return self.fuse(torch.cat([x, x]), torch.cat([r, r]))[:1]
        return self.fuse(x, r)

    def fuse(self, x: Tensor, r: Tensor) -> Tensor:
        """Fuse x and r."""
        raise NotImplementedError


class Daf(Fusion):
    """x + r."""

    def fuse(self, x: Tensor, r: Tensor) -> Tensor:
        """Add the two."""
        return x + r


class Aff(Fusion):
    """2 x a + 2 r (1 - a), a = sigmoid(local(x + r) + global(x + r))."""

    def __init__(self, sides: str, channels: int, r: int) -> None:
        super().__init__()
        self.local_att = _branch(sides, channels, r, pooled=False)
        self.global_att = _branch(sides, channels, r, pooled=True)

    def fuse(self, x: Tensor, r: Tensor) -> Tensor:
        """Weigh the two by the attention to their sum."""
        share = _share(self.local_att, self.global_att, x + r)
        return 2 * x * share + 2 * r * (1 - share)


class IterativeAff(Fusion):
    """Attention to the sum, and then to what it gave: x b + r (1 - b).

    `reuse`: the second attention asks global_att again, and global_att2 is only there because
    LAION's checkpoints hold it.
    """

    def __init__(self, sides: str, channels: int, r: int, reuse: bool) -> None:
        super().__init__()
        self.reuse = reuse
        self.local_att = _branch(sides, channels, r, pooled=False)
        self.global_att = _branch(sides, channels, r, pooled=True)
        self.local_att2 = _branch(sides, channels, r, pooled=False)
        self.global_att2 = _branch(sides, channels, r, pooled=True)

    def fuse(self, x: Tensor, r: Tensor) -> Tensor:
        """Weigh the two twice."""
        share = _share(self.local_att, self.global_att, x + r)
        first = x * share + r * (1 - share)
        second = self.global_att if self.reuse else self.global_att2
        share = _share(self.local_att2, second, first)
        fused = x * share + r * (1 - share)
        if self.reuse and self.training:
            fused = fused + no_gradient(self.global_att2)
        return fused


def _share(local: nn.Module, whole: nn.Module, x: Tensor) -> Tensor:
    """Attention to a map x, a share for each of its numbers."""
    return torch.sigmoid(local(x) + whole(x))


def _branch(sides: str, channels: int, r: int, *, pooled: bool) -> nn.Sequential:
    """Attention logits of a map: two 1 x 1 convolutions with a narrow middle, each normed."""
    flat = sides == "1d"
    conv: type[nn.Module] = nn.Conv1d if flat else nn.Conv2d
    norm: type[nn.Module] = nn.BatchNorm1d if flat else nn.BatchNorm2d
    pool: list[nn.Module] = [nn.AdaptiveAvgPool1d(1) if flat else nn.AdaptiveAvgPool2d(1)]
    inside = channels // r
    return nn.Sequential(
        *(pool if pooled else []),
        conv(channels, inside, 1),
        norm(inside),
        nn.ReLU(inplace=True),
        conv(inside, channels, 1),
        norm(channels),
    )
