"""HTSAT's first steps, where a longer sound's views become one: patch embedding, mels, stripes.

A sound that is not longer has four equal views, of which the first alone is used, and so is at
inference what it would be in any other batch.
Shapes: B sounds, V views (4: the shrunk whole, front, middle, back), T frames, M mel bins, S rows
and columns of a folded log-mel, W numbers of a token.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pivot.encoders.fusion import fusion_module, no_gradient

PATCH = 4  # rows and columns of a patch
VIEWS = 4
STRIPES = 2  # in each direction (LAION: torchlibrosa's SpecAugmentation)
WIDEST_FRAMES, WIDEST_BINS = 64, 8  # a stripe is narrower than this


class PatchEmbedding(nn.Module):
    """Folded log-mels (B, 1 or V, S, S) -> tokens (B, S / 4 * S / 4, W), row by row.

    `fusion` none and the 1D kinds take one image, channel_map four as channels of one convolution.
    The 2D kinds embed the first image with `proj`; of sounds that are longer they embed the other
    three with `mel_conv2d`, whose patches are three times as wide, lay them side by side, zeros
    behind them, and fuse both. Names are LAION's: proj, norm, mel_conv2d, fusion_model.
    """

    def __init__(self, width: int, fusion: str = "none") -> None:
        super().__init__()
        channels = VIEWS if fusion == "channel_map" else 1
        self.fused = "_2d" in fusion
        self.proj = nn.Conv2d(channels, width, PATCH, PATCH)
        self.norm = nn.LayerNorm(width)
        if self.fused:
            wide = (PATCH, PATCH * (VIEWS - 1))
            self.mel_conv2d = nn.Conv2d(1, width, wide, wide)
            self.fusion_model = fusion_module(fusion, width)

    def forward(self, images: Tensor, longer: Tensor | None = None) -> Tensor:
        """Embed images (B, C, S, S); `longer` (B,) bool is for the 2D kinds, None: no one is."""
        if not self.fused:
            return self._flat(self.proj(images))
        maps = self.proj(images[:, :1])  # (B, W, S / 4, S / 4)
        rows = _rows(longer, maps)
        if len(rows):
            fused = self.fusion_model(maps[rows], self._windows(images[rows, 1:], maps.shape[-1]))
            maps = maps.index_copy(0, rows, fused.to(maps.dtype))
        elif self.training:
            maps = maps + no_gradient(self.mel_conv2d) + no_gradient(self.fusion_model)
        return self._flat(maps)

    def _windows(self, images: Tensor, columns: int) -> Tensor:
        """Front, middle and back (b, 3, S, S) as one map (b, W, S / 4, columns)."""
        maps = self.mel_conv2d(images.reshape(-1, 1, *images.shape[2:]))
        beside = maps.unflatten(0, (len(images), -1)).permute(0, 2, 3, 1, 4).flatten(3)
        return F.pad(beside, (0, columns - beside.shape[-1]))

    def _flat(self, maps: Tensor) -> Tensor:
        tokens: Tensor = self.norm(maps.flatten(2).mT)
        return tokens


class MelFusion(nn.Module):
    """Views (B, V, T, M) -> one log-mel (B, 1, T, M), by the 1D kinds of fusion.

    Of sounds that are longer the three windows go through `mel_conv1d`, each to a third of its
    frames, one behind the other, and are fused with the shrunk whole over M channels.
    """

    def __init__(self, mels: int, fusion: str) -> None:
        super().__init__()
        self.mel_conv1d = nn.Sequential(
            nn.Conv1d(mels, mels, 5, stride=VIEWS - 1, padding=2), nn.BatchNorm1d(mels)
        )
        self.fusion_model = fusion_module(fusion, mels)

    def forward(self, views: Tensor, longer: Tensor | None = None) -> Tensor:
        """Fuse the views of sounds that `longer` (B,) bool has; of the rest the first remains."""
        mel = views[:, 0].mT  # (B, M, T)
        rows = _rows(longer, mel)
        if len(rows):
            thirds = self.mel_conv1d(views[rows, 1:].flatten(0, 1).mT)  # (3 b, M, ceil(T / 3))
            behind = thirds.unflatten(0, (len(rows), -1)).transpose(1, 2).flatten(2)
            fused = self.fusion_model(mel[rows], behind[..., : mel.shape[-1]])
            mel = mel.index_copy(0, rows, fused.to(mel.dtype))
        elif self.training:
            mel = mel + no_gradient(self)
        return mel.mT[:, None]


def _rows(longer: Tensor | None, like: Tensor) -> Tensor:
    """Numbers of the sounds that are longer."""
    if longer is None:
        return torch.empty(0, dtype=torch.long, device=like.device)
    return longer.to(like.device).nonzero()[:, 0]


def with_stripes(x: Tensor) -> Tensor:
    """Log-mels (B, V, T, M) with stripes of zeros, drawn for each sound, the same in its views.

    SpecAugment as LAION trains with it: two stripes of 0 to 63 frames, two of 0 to 7 mel bins.
    """
    frames = _outside_stripes(len(x), x.shape[2], WIDEST_FRAMES, x.device)
    bins = _outside_stripes(len(x), x.shape[3], WIDEST_BINS, x.device)
    return x * (frames[:, None, :, None] & bins[:, None, None, :])


def _outside_stripes(sounds: int, length: int, widest: int, device: torch.device) -> Tensor:
    """Where (sounds, length) no stripe lies; those of few frames leave at least one of them."""
    width = torch.randint(min(widest, length), (sounds, STRIPES, 1), device=device)
    start = (torch.rand(sounds, STRIPES, 1, device=device) * (length - width)).long()
    at = torch.arange(length, device=device)
    return ~((start <= at) & (at < start + width)).any(1)
