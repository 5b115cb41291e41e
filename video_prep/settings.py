"""Settings of prepare-frames and prepare-audio; the comment after a field is its help text."""

from __future__ import annotations

import os
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field
from tyro.conf import Positional, arg

from video_prep.recipe import Recipe

Positive = Annotated[int, Field(gt=0)]


class Settings(BaseModel):
    """Base of all settings: unknown keys are errors, values cannot change after the check."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


class PrepareAudio(Settings):
    """Prepare audio-only files as shards: sound and facts, without pictures."""

    # folder, glob in quotes, one file, or a CSV / JSON-lines list with path and optionally id,
    # start, end, labels, captions (several labels or captions: a list, or ; between them in CSV)
    source: Positional[Annotated[str, arg(metavar="SOURCE")]]
    out: str  # folder for the shards; run again to go on after an interruption
    # Hz of the stored sound; native: each file's own rate
    audio_rate: Positive | Literal["native"] = 16000
    # channels stored; auto: the first, or all with --audio-rate native
    channel: Literal["auto", "first", "mean", "all"] = "auto"
    workers: Positive | None = None  # processes; default: one a core
    # clips a shard; default: a 16th of all, at least 16 and at most 256
    shard_size: Positive | None = None
    # seconds that one clip may take before it is given up
    timeout: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 120.0
    memory_mb: Positive | None = None  # memory that one worker may use, MB; default: no limit

    def recipe(self) -> Recipe:
        """What is taken from every clip."""
        return Recipe(num_frames=0, audio_rate=self.audio_rate, channel=self._channel())

    def _channel(self) -> Literal["first", "mean", "all"]:
        if self.channel == "auto":
            return "all" if self.audio_rate == "native" else "first"
        return self.channel

    def worker_count(self) -> int:
        """Number of worker processes."""
        return self.workers or cores()


class PrepareFrames(PrepareAudio):
    """Prepare videos as shards: equally spaced frames, sound and facts of every clip."""

    num_frames: Positive = 4  # frames a clip, equally spaced
    # pixels of the shorter side; 0 keeps the source's; never enlarged
    short_side: Annotated[int, Field(ge=0)] = 256
    quality: Annotated[int, Field(ge=1, le=100)] = 90  # JPEG quality
    # times of the frames: middles of equal pieces, or both ends included as VIP-ANT
    frame_policy: Literal["midpoints", "endpoints"] = "midpoints"
    # who decodes pictures; decord is slower, less exact and for x86-64 only
    decoder: Literal["pyav", "decord"] = "pyav"

    def recipe(self) -> Recipe:
        """What is taken from every clip."""
        return Recipe(
            num_frames=self.num_frames,
            short_side=self.short_side,
            quality=self.quality,
            frame_policy=self.frame_policy,
            decoder=self.decoder,
            audio_rate=self.audio_rate,
            channel=self._channel(),
        )


def cores() -> int:
    """Cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
