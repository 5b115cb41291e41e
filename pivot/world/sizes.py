"""What all stages of the demo share: its splits, models, shapes, and how much it takes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from pivot.settings import AudioSettings, ClipSettings, Demo, MaskSettings, VitSettings

CLIP = ClipSettings(model="tiny-world")
AUDIO = AudioSettings(num_mel_bins=72, frame_length_ms=50, frame_shift_ms=40, num_frames=51)
ENCODER = VitSettings(stride=(6, 12), kernel="load_sum")
MASK = MaskSettings(time=10, freq=12)
SPLITS = ("train", "test_single", "test_mixed")
HEARD = "the sound of a"  # prompt of class names


@dataclass(frozen=True)
class Size:
    """How much of everything a demo takes."""

    train: int
    test_single: int
    test_mixed: int
    va_steps: int
    at_steps: int
    classifier_steps: int
    sizes: tuple[int, ...]
    seeds: tuple[int, ...]


FULL = Size(1500, 480, 400, 300, 300, 100, (32, 128, 512, 1500), (1, 2))
FAST = Size(300, 96, 80, 120, 80, 40, (32, 96, 288), (1,))


@dataclass(frozen=True)
class Tuning:
    """An audio-text fine-tuning of the demo: where its captions come from."""

    key: str
    rule: Literal["pivot", "random", "gold"]
    pool: str  # caption pool in the demo's folder, or "" for the clips' own captions
    made_by: str  # job that makes the pool


FREE = "free/captions.jsonl"
TUNINGS = (
    Tuning("at_ac", "pivot", "world/captions_audio.txt", "world"),
    Tuning("at_vc", "pivot", "world/captions_vision.txt", "world"),
    Tuning("at_fc", "pivot", FREE, "write-captions"),
    Tuning("at_rc", "random", "world/captions_audio.txt", "world"),
    Tuning("at_gc", "gold", "", "world"),
)
MODELS = (
    "untrained", "va_random_init", "va", "va_long", "vat_ac", *(tuning.key for tuning in TUNINGS),
)  # fmt: skip
# Of the encoder's blocks, those that train with a classifier's head; last of all the whole encoder.
LAYERS: dict[int, int | Literal["all"]] = {0: 0, 1: 1, 2: 2, 3: "all"}


def size_of(settings: Demo) -> Size:
    """What a demo of these settings takes."""
    size = FAST if settings.fast else FULL
    if settings.clips is None:
        return size
    fewer = tuple(n for n in size.sizes if n < settings.clips)
    return replace(size, train=settings.clips, sizes=(*fewer, settings.clips))
