"""Sizes of a visual ViT as its state dict tells them, its positions and its random start."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from pivot.errors import ModelError

SLICED_OFF = 6  # rows of time that the reference skips when it shortens a trained encoder


@dataclass(frozen=True)
class VisualFacts:
    """What the weights of a visual ViT do not tell about it; defaults are OpenAI's CLIP."""

    heads: int
    activation: Literal["quick_gelu", "gelu"] = "quick_gelu"
    pool: Literal["tok", "avg"] = "tok"
    norm_after_pool: bool = False  # ln_post after pooling instead of before
    grid: tuple[int, int] | None = None  # CLIP's patch grid (rows, columns); None: square
    eps: float = 1e-5  # of the layer norms


@dataclass(frozen=True)
class VitShape:
    """Sizes of a visual ViT, as its state dict tells them, and its facts."""

    width: int
    layers: int
    hidden: int  # width of the MLP
    dim: int  # of the joint space
    patch: tuple[int, int]
    grid: tuple[int, int] | None  # of CLIP's patches; None: neither given nor square
    norm_before: bool  # has ln_pre
    layer_scale: bool  # has ls_1, ls_2
    facts: VisualFacts

    @classmethod
    def of(cls, weights: Mapping[str, Tensor], facts: VisualFacts) -> VitShape:
        """Read the sizes from an open_clip visual state dict; refuse what is not a plain ViT."""
        needed = ["conv1.weight", "class_embedding", "positional_embedding", "proj"]
        needed.append("transformer.resblocks.0.mlp.c_fc.weight")
        missing = [name for name in needed if name not in weights]
        if missing:
            raise ModelError(
                f"this CLIP's image encoder is not a ViT of open_clip (no {missing[0]}); "
                "choose one such as ViT-B-32-quickgelu"
            )
        width, _, *patch = weights["conv1.weight"].shape
        if facts.heads < 1 or width % facts.heads:
            raise ModelError(f"{facts.heads} heads do not divide the encoder's width {width}")
        blocks = {m[1] for n in weights if (m := re.match(r"transformer\.resblocks\.(\d+)\.", n))}
        return cls(
            width=width,
            layers=len(blocks),
            hidden=weights[needed[-1]].shape[0],
            dim=weights["proj"].shape[1],
            patch=(patch[0], patch[1]),
            grid=facts.grid or _square(len(weights["positional_embedding"]) - 1),
            norm_before="ln_pre.weight" in weights,
            layer_scale="transformer.resblocks.0.ls_1.gamma" in weights,
            facts=facts,
        )


def patch_grid(
    size: tuple[int, int], patch: tuple[int, int], stride: tuple[int, int]
) -> tuple[int, int]:
    """Cells along (time, mel) of an input of (frames, mel bins); ModelError where there is none."""
    (frames, mels), (tall, wide), (down, right) = size, patch, stride
    if frames < tall or mels < wide:
        raise ModelError(
            f"an input of {frames} frames x {mels} mel bins is smaller than one patch "
            f"({tall} x {wide}); raise --audio.num-frames or --audio.num-mel-bins"
        )
    return (frames - tall) // down + 1, (mels - wide) // right + 1


def _square(cells: int) -> tuple[int, int] | None:
    """Side lengths of a square grid."""
    side = round(cells**0.5)
    return (side, side) if side * side == cells else None


def resize_positions(table: Tensor, old: tuple[int, int], new: tuple[int, int]) -> Tensor:
    """Positions (1 + old cells, D) -> (1 + new cells, D): bilinear, class position kept.

    No antialias and no aligned corners (VIP-ANT); the same grid is copied.
    """
    if old == new:
        return table.clone()
    grid = table[1:].T.reshape(1, -1, *old)
    grid = F.interpolate(grid, size=new, mode="bilinear", align_corners=False)
    return torch.cat([table[:1], grid[0].flatten(1).T])


def slice_positions(table: Tensor, old: tuple[int, int], new: tuple[int, int]) -> Tensor:
    """Positions (1 + old cells, D) -> (1 + new cells, D): the rows of time from the seventh on.

    The reference takes them so when it loads a trained encoder for shorter sounds; 6 is written
    into its code, whatever the two lengths. ModelError where 6 rows and the new ones are more than
    the grid has: the reference fails there, too.
    """
    if old[1] != new[1] or SLICED_OFF + new[0] > old[0]:
        raise ModelError(
            f"positions slice6 skips {SLICED_OFF} rows of a grid of {old[0]} x {old[1]}, which "
            f"leaves no {new[0]} x {new[1]}; take positions bilinear, or a shorter --num-frames"
        )
    grid = table[1:].unflatten(0, old)[SLICED_OFF : SLICED_OFF + new[0]]
    return torch.cat([table[:1], grid.flatten(0, 1)])


def fill_at_random(name: str, value: Tensor, shape: VitShape, generator: torch.Generator) -> None:
    """Fill one parameter as torch (and VIP-ANT) would start it."""
    if name in ("class_embedding", "positional_embedding", "proj"):
        value.normal_(0, shape.width**-0.5, generator=generator)
    elif name.endswith("in_proj_weight"):  # Xavier: 6 / (fan in + fan out), fan out 3 D
        bound = (6 / (4 * shape.width)) ** 0.5
        value.uniform_(-bound, bound, generator=generator)
    elif name.endswith(("attn.in_proj_bias", "out_proj.bias")):
        value.zero_()
    elif name.startswith("conv1"):
        bound = value[0].numel() ** -0.5  # of as many channels as the kernel has
        value.uniform_(-bound, bound, generator=generator)
    elif ".mlp." in name or "out_proj" in name:
        fan_in = shape.hidden if "c_proj" in name else shape.width
        value.uniform_(-(fan_in**-0.5), fan_in**-0.5, generator=generator)
