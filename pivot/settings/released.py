"""Settings of import-checkpoint: models that the authors released."""

from __future__ import annotations

from typing import Annotated, Literal

from tyro.conf import Positional, arg

from pivot.settings.base import Positive, Settings
from pivot.settings.parts import ClipSettings


class ImportCheckpoint(Settings):
    """Turn a checkpoint that VIP-ANT's authors released into a model, checked key by key."""

    # FILE.pth: their settings and weights; nothing it contains is executed
    checkpoint: Positional[Annotated[str, arg(metavar="FILE")]]
    out: str  # run folder for the model
    clip: ClipSettings = ClipSettings(model="ViT-B-32-quickgelu", pretrained="openai")
    # patch step along (time, mel); this and the next three: default as the checkpoint's own
    # settings say, and where they say nothing as the paper's models
    stride: tuple[Positive, Positive] | None = None
    num_frames: Positive | None = None  # FBANK frames it was trained with, e.g. 1000
    num_mel_bins: Positive | None = None  # mel bins, e.g. 128
    norms: str | None = None  # mean and deviation of FBANK: vip_ant, ast, or a JSON file
    # positions for shorter sounds: the reference's rows after the sixth, or resized
    positions: Literal["slice6", "bilinear"] = "slice6"
    ignore_unknown: bool = False  # leave out weights that the encoder does not have
