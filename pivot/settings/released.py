"""Settings of import-checkpoint: models that the authors released."""

from __future__ import annotations

from typing import Annotated

from tyro.conf import Positional, arg

from pivot.settings.base import Settings
from pivot.settings.parts import ClipSettings


class ImportCheckpoint(Settings):
    """Turn a checkpoint that VIP-ANT's authors released into a model folder, checked key by key."""

    # FILE.pth: their settings and weights; nothing it contains is executed
    checkpoint: Positional[Annotated[str, arg(metavar="FILE")]]
    out: str  # model folder
    clip: ClipSettings = ClipSettings(model="ViT-B-32-quickgelu", pretrained="openai")
