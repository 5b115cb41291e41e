"""What is taken from every clip: the settings that change the bytes, free of heavy imports."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Recipe:
    """How many frames, how large, which sound. `num_frames` 0 prepares sound alone."""

    num_frames: int = 4
    short_side: int = 256
    quality: int = 90
    frame_policy: Literal["midpoints", "endpoints"] = "midpoints"
    snap_seconds: float = 0.0
    decoder: Literal["pyav", "decord", "torchcodec"] = "pyav"
    audio_rate: int | Literal["native"] = 16000
    channel: Literal["first", "mean", "all"] = "first"
    sound: Literal["flac", "pcm16", "copy"] = "flac"
