"""PaSST: a ViT with positions of time and of frequency, and patches left out in training.

Source: Koutini et al., Efficient Training of Audio Transformers with Patchout (2022,
arXiv:2110.05069). A window's features are the mean of the class and the distillation token.
Shapes: B sounds, T frames, M mel bins, D width, R rows of frequency, C columns of time.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from timm.layers import trunc_normal_
from torch import Tensor, nn

from pivot.encoders.published import HEAD, depth_of, size_of, take_over
from pivot.encoders.timm_vit import TimmVit
from pivot.errors import ModelError
from pivot.settings.encoders import PasstSettings
from pivot.settings.front_ends import HtkLogSettings

FAMILY = "PaSST"
# where PaSST's names differ from those here
SPELT = {
    "reg_token": "dist_token",
    "patch_drop.tokens": "new_pos_embed",
    "patch_drop.freq": "freq_new_pos_embed",
    "patch_drop.time": "time_new_pos_embed",
}


class Passt(TimmVit):
    """Log-mel -> features (B, D): one token a window."""

    KIND = "passt"
    TIME = ("body.patch_drop.time", 3)

    def __init__(self, settings: PasstSettings, audio: HtkLogSettings) -> None:
        """Random weights. ModelError where patchout would leave nothing of a window."""
        patch = (settings.patch, settings.patch)
        super().__init__(settings, audio, patch, settings.stride, class_token=True, reg_tokens=1)
        self.grid = (1,)
        out = (settings.patchout_time, settings.patchout_freq)
        if out[0] >= self.cells[0] or out[1] >= self.cells[1]:
            raise ModelError(
                f"patchout of {out[0]} columns of time and {out[1]} rows of frequency leaves "
                f"nothing of a window of {self.cells[0]} x {self.cells[1]} patches; lower "
                "--encoder.patchout-time or --encoder.patchout-freq"
            )
        self.body.add_module("patch_drop", Positions(settings.width, self.cells, out))

    def window_tokens(self, x: Tensor) -> Tensor:
        """The one token (B, 1, D) of a window (B, T, M): its features, as SALSA has it."""
        return self.tokens(x)[:, :2].mean(1, keepdim=True)


class Positions(nn.Module):
    """Adds what tells tokens apart, then leaves patches out where it trains (patchout).

    Parameters, of PaSST's shapes: tokens (1, 2, D) for class and distillation token, freq
    (1, D, R, 1), time (1, D, 1, C).
    """

    def __init__(self, width: int, cells: tuple[int, int], out: tuple[int, int]) -> None:
        """Cells and patches to leave out are (columns of time, rows of frequency)."""
        super().__init__()
        self.out = out
        self.tokens = nn.Parameter(torch.empty(1, 2, width))
        self.freq = nn.Parameter(torch.empty(1, width, cells[1], 1))
        self.time = nn.Parameter(torch.empty(1, width, 1, cells[0]))
        for table in self.parameters():
            trunc_normal_(table, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens (B, 2 + R * C, D), frequency by frequency, -> (B, 2 + what is kept, D).

        A window of fewer columns takes the first positions in time, while training any that follow
        on one another. The kept columns and rows are the same for the whole batch; both are drawn
        from torch's generator, in PaSST's order.
        """
        patches = x[:, 2:].mT.unflatten(2, (self.freq.shape[2], -1))  # (B, D, R, C)
        rows, columns = patches.shape[2:]
        spare, start = self.time.shape[3] - columns, 0
        if self.training and spare > 0:
            start = int(torch.randint(1 + spare, (1,)))
        patches = patches + self.time[..., start : start + columns] + self.freq
        if self.training and self.out[0]:
            patches = patches[..., _kept(columns, self.out[0])]
        if self.training and self.out[1]:
            patches = patches[:, :, _kept(rows, self.out[1])]
        return torch.cat([x[:, :2] + self.tokens, patches.flatten(2).mT], dim=1)


def _kept(cells: int, out: int) -> Tensor:
    """Numbers of the cells that stay when `out` of them are left out; one always stays."""
    return torch.randperm(cells)[: max(1, cells - out)].sort().values


def published(
    weights: Mapping[str, Tensor],
) -> tuple[PasstSettings, dict[str, Tensor], list[str]]:
    """PaSST's own state dict -> settings, the encoder's state dict, names left over (heads).

    Of weights for 10 s at 32000 Hz; the step of the patches is read from the positions.
    ModelError (UnknownWeights) names the first weight that does not fit.
    """
    audio = HtkLogSettings()
    width = size_of(FAMILY, weights, "cls_token", (1, 1, None))[2]
    patch = size_of(FAMILY, weights, "patch_embed.proj.weight", (width, 1, None, None))[2]
    rows = size_of(FAMILY, weights, "freq_new_pos_embed", (1, width, None, 1))[2]
    columns = size_of(FAMILY, weights, "time_new_pos_embed", (1, width, 1, None))[3]

    def fits(step: int) -> tuple[bool, bool, int]:
        return (
            (audio.num_mel_bins - patch) // step + 1 == rows,
            (audio.num_frames - patch) // step + 1 == columns,
            step,
        )

    step = max(range(1, audio.num_mel_bins), key=fits)
    settings = PasstSettings(
        width=width,
        depth=depth_of(weights, "blocks."),
        heads=max(1, width // HEAD),
        patch=patch,
        stride=(step, step),
    )
    with torch.device("meta"):
        encoder = Passt(settings, audio)
    own, left = take_over(FAMILY, weights, encoder, _spell, ("head.", "head_dist."))
    return settings, own, left


def _spell(name: str) -> str:
    name = name.removeprefix("body.")
    return SPELT.get(name, name)
