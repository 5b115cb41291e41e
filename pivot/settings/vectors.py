"""Settings of measure-fbank and embed: from shards to norms, and from weights to vectors."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from tyro.conf import Positional, arg

from pivot.settings.base import Positive, Settings, Shards
from pivot.settings.parts import AudioSettings, ClipSettings


class MeasureFbank(Settings):
    """Measure the mean and deviation of FBANK over the real frames of the shards."""

    shards: Shards  # folder made by prepare-frames or prepare-audio
    audio: AudioSettings = AudioSettings()
    out: str | None = None  # JSON file; default SHARDS/fbank.json
    workers: Annotated[int, Field(ge=0)] = 0  # processes; the result does not depend on it


class Embed(Settings):
    """Embed frames, sounds or sentences into a store, or keep the FBANK of shards for training."""

    # what to embed; fbank: no embedding, FBANK in uint8 (1/8-nat steps) for --fbank of a training
    what: Positional[Literal["image", "audio", "text", "fbank"]]
    # shards (image, audio, fbank), a folder of sound files (audio), a caption or label file (text)
    data: Positional[Annotated[str, arg(metavar="DATA")]]
    out: str  # store folder; an unfinished one of the same settings is gone on with
    # K/N: do the K-th of N parts; N processes or machines share --out, the last one joins them
    part: str | None = None
    model: str | None = None  # run or model folder (needed for audio)
    audio: AudioSettings = AudioSettings()  # for fbank: as in the training that it is for
    clip: ClipSettings = ClipSettings()  # instead of --model, for image and text
    prompt: str = ""  # put before each sentence, or a template with {}
    batch_size: Positive = 64  # items a batch
    device: str = "auto"  # auto, cpu, cuda, mps
