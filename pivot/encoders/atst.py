"""ATST-Frame: a ViT whose tokens are frames of 40 ms, each a patch as tall as the log-mel.

Source: Li et al., Self-supervised Audio Teacher-Student Transformer for Both Clip-level and
Frame-level Tasks (2024, arXiv:2306.04186). Shapes: B sounds, T frames of log-mel, M mel bins,
N tokens, D width.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from timm.layers import trunc_normal_
from torch import Tensor, nn

from pivot.encoders.published import HEAD, depth_of, size_of, take_over
from pivot.encoders.timm_vit import TimmVit
from pivot.settings.encoders import AtstSettings
from pivot.settings.front_ends import HtkDbSettings

FAMILY = "ATST-Frame"
KERNEL, POSITIONS = "patch_embed.patch_embed.weight", "pos_embed"


class Atst(TimmVit):
    """Log-mel -> features (B, D): the mean over a window's frames."""

    KIND = "atst"
    TIME = ("body.patch_drop.frames", 1)

    def __init__(self, settings: AtstSettings, audio: HtkDbSettings) -> None:
        """Random weights."""
        patch = (settings.patch, audio.num_mel_bins)
        super().__init__(
            settings, audio, patch, patch, class_token=False, qkv_bias=False,
            drop_path_rate=settings.drop_path,
        )  # fmt: skip
        self.grid = (self.cells[0],)
        self.body.add_module("patch_drop", Positions(settings.width, self.cells[0]))

    def window_tokens(self, x: Tensor) -> Tensor:
        """Tokens (B, N, D) of windows (B, T, M): one for each `patch` frames."""
        return self.tokens(x)


class Positions(nn.Module):
    """Adds the first of the positions, frames (1, N, D), to tokens."""

    def __init__(self, width: int, frames: int) -> None:
        super().__init__()
        self.frames = nn.Parameter(trunc_normal_(torch.empty(1, frames, width), std=0.02))

    def forward(self, x: Tensor) -> Tensor:
        """Tokens (B, up to N, D) -> the same with their positions."""
        return x + self.frames[:, : x.shape[1]]


def published(
    weights: Mapping[str, Tensor],
) -> tuple[AtstSettings, dict[str, Tensor], list[str]]:
    """ATST-Frame's encoder, bare names -> settings, our state dict, names left over.

    Of weights for 10 s at 16000 Hz. The last norm is `norm_frame`, or `norm` where the file has no
    other (a teacher of the pre-training). ModelError (UnknownWeights) names the first weight that
    does not fit.
    """
    audio = HtkDbSettings()
    width, pixels = size_of(FAMILY, weights, KERNEL, (None, None))
    settings = AtstSettings(
        width=width,
        depth=depth_of(weights, "blocks."),
        heads=max(1, width // HEAD),
        patch=max(1, pixels // audio.num_mel_bins),
    )
    with torch.device("meta"):
        encoder = Atst(settings, audio)
    norm = "norm_frame" if "norm_frame.weight" in weights else "norm"

    def spell(name: str) -> str:
        name = name.removeprefix("body.").replace("patch_embed.proj", "patch_embed.patch_embed")
        return name.replace("patch_drop.frames", POSITIONS).replace("norm.", f"{norm}.")

    own, left = take_over(
        FAMILY, weights, encoder, spell, ("cls_token", "mask_embed", "norm."),
        {KERNEL: (width, settings.patch * audio.num_mel_bins),
         POSITIONS: (1, 1 + encoder.grid[0], width)},
    )  # fmt: skip
    kernel = "body.patch_embed.proj.weight"  # a linear layer on the numbers of a patch
    own[kernel] = own[kernel].unflatten(1, (1, audio.num_mel_bins, settings.patch))
    own[Atst.TIME[0]] = own[Atst.TIME[0]][:, 1:]  # the first was a class token's
    return settings, own, left
