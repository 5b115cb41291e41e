"""Settings of prepare-frames, prepare-audio and verify; the comment after a field is its help."""

from __future__ import annotations

import os
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator
from tyro.conf import Positional, arg

from video_prep.recipe import Recipe

Positive = Annotated[int, Field(gt=0)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Settings(BaseModel):
    """Base of all settings: unknown keys are errors, values cannot change after the check."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


class InputSettings(Settings):
    """What is prepared, and what of it is kept."""

    # folder, glob in quotes, one file, a CSV / JSON-lines list with path and optionally id, start,
    # end, labels, captions, or (with --media) AudioSet's, AudioCaps's or VGGSound's own list; the
    # folder or table of ESC-50 (meta/esc50.csv), UrbanSound8K (metadata/UrbanSound8K.csv),
    # Clotho (clotho_captions_*.csv), FSD50K (dev.csv or eval.csv), MACS (MACS.yaml), WavCaps (one
    # of its json_files) or TUT Acoustic Scenes 2017 (one of its two folders, or the folder that
    # holds both); audioset-dl's folders and index
    source: Positional[Annotated[str, arg(metavar="SOURCE")]]
    out: str  # folder for the shards; run again to go on after an interruption
    # folder of the files that a list names by YouTube id, or a data set's table by file name
    media: str | None = None
    already_cut: bool = False  # the downloaded files hold the segment alone, not the whole video
    # AudioSet's ontology.json or class_labels_indices.csv: labels such as /m/0jbk become names, and
    # FSD50K's AudioSet's names
    ontology: str | None = None
    # lists of clips to leave out, such as WavCaps's blacklist_exclude_all_ac.json or the table of a
    # test set: by Freesound or YouTube id, or else by name (freesound:FILE, youtube:FILE: its names
    # are such ids)
    exclude: tuple[str, ...] = ()
    # Hz of the stored sound; native: each file's own rate
    audio_rate: Positive | Literal["native"] = 16000
    # channels stored; auto: the first, or all with --audio-rate native
    channel: Literal["auto", "first", "mean", "all"] = "auto"
    # how sound is stored; copy: the source's own packets (with --audio-rate native)
    sound: Literal["flac", "pcm16", "copy"] = "flac"
    # clips a shard; default: a 16th of all, at least 16 and at most 256
    shard_size: Positive | None = None


class WorkerSettings(Settings):
    """How the workers of one machine are run; none of it changes a byte of the result."""

    workers: Positive | None = None  # processes; default: one a core
    # seconds that one clip may take before it is given up
    timeout: Seconds = 120.0
    memory_mb: Positive | None = None  # memory that one worker may use, MB; default: no limit
    # exit with status 1 where more than this share of the clips failed; default: never
    max_fail: Annotated[float, Field(ge=0, le=1)] | None = None

    def worker_count(self) -> int:
        """Number of worker processes."""
        return self.workers or cores()


class PrepareAudio(WorkerSettings, InputSettings):
    """Prepare audio-only files as shards: sound and facts, without pictures."""

    shards: str | None = None  # do these shards of the plan only, as FIRST:END (END not included)
    # try the failed clips of these reasons again, e.g. timeout; all: every failed clip
    retry_failed: tuple[str, ...] = ()
    # who hands out the shards: this machine, a Ray cluster, or a Slurm job array
    engine: Literal["local", "ray", "slurm"] = "local"
    ray_address: str = "auto"  # Ray cluster to join; auto: the running one; local: start one here
    print: bool = False  # with --engine slurm: print the job script instead of handing it in
    slurm_tasks: Positive = 16  # with --engine slurm: tasks of the job array
    slurm_options: str = ""  # with --engine slurm: more options of sbatch, in quotes

    def recipe(self) -> Recipe:
        """What is taken from every clip."""
        return Recipe(
            num_frames=0, audio_rate=self.audio_rate, channel=self._channel(), sound=self.sound
        )

    def _channel(self) -> Literal["first", "mean", "all"]:
        if self.channel == "auto":
            return "all" if self.audio_rate == "native" else "first"
        return self.channel

    @model_validator(mode="after")
    def _belong_together(self) -> PrepareAudio:
        if self.sound == "copy" and (self.audio_rate != "native" or self._channel() != "all"):
            raise ValueError(
                "--sound copy keeps each file's own rate and channels; add --audio-rate native "
                "and leave --channel"
            )
        if self.print and self.engine != "slurm":
            raise ValueError("--print is for --engine slurm")
        if self.shards is not None and self.engine != "local":
            raise ValueError(f"--shards is for one machine; --engine {self.engine} cuts by itself")
        return self


class PrepareFrames(PrepareAudio):
    """Prepare videos as shards: equally spaced frames, sound and facts of every clip."""

    num_frames: Positive = 4  # frames a clip, equally spaced
    # pixels of the shorter side; 0 keeps the source's; never enlarged
    short_side: Annotated[int, Field(ge=0)] = 256
    quality: Annotated[int, Field(ge=1, le=100)] = 90  # JPEG quality
    # times of the frames: middles of equal pieces, or both ends included as VIP-ANT (its last one
    # is then the last frame)
    frame_policy: Literal["midpoints", "endpoints"] = "midpoints"
    # take a keyframe within so many seconds of a frame's time instead: faster, less even
    snap_seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    # who decodes pictures; decord and torchcodec are slower, less exact, and flagged where wrong
    decoder: Literal["pyav", "decord", "torchcodec"] = "pyav"

    def recipe(self) -> Recipe:
        """What is taken from every clip."""
        return Recipe(
            num_frames=self.num_frames,
            short_side=self.short_side,
            quality=self.quality,
            frame_policy=self.frame_policy,
            snap_seconds=self.snap_seconds,
            decoder=self.decoder,
            audio_rate=self.audio_rate,
            channel=self._channel(),
            sound=self.sound,
        )


class Verify(WorkerSettings):
    """Hash a prepared folder again, and redo what is damaged or missing."""

    out: Positional[Annotated[str, arg(metavar="SHARDS")]]  # folder made by a prepare command
    check_only: bool = False  # name what is damaged and redo nothing; then exit with status 1


def cores() -> int:
    """Cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
