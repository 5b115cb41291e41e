"""Settings of the commands that make (sound, caption) pairs."""

from __future__ import annotations

from typing import Annotated, Literal

from tyro.conf import Positional, arg

from pivot.settings.base import Positive, Settings
from pivot.settings.parts import ClipSettings


class MineCaptions(Settings):
    """Make (sound, caption) pairs through the image pivot, without audio-text data."""

    # store of frame embeddings (pivot embed image)
    images: Positional[Annotated[str, arg(metavar="IMAGE_STORE")]]
    # caption file (txt, csv, jsonl, COCO json), or shards with captions
    captions: Positional[Annotated[str, arg(metavar="CAPTIONS")]]
    out: str  # pairs file, .parquet
    # nearest captions; random captions (RC); each clip's own captions
    rule: Literal["pivot", "random", "gold"] = "pivot"
    clip: ClipSettings = ClipSettings()  # default: the CLIP that made the image store
    prompt: str = ""  # put before each caption when it is embedded
    top_k: Positive = 10  # captions a frame; random: captions a clip
    frames: Literal["all", "middle"] = "all"  # union over all frames of a clip, or its middle one
    seed: int = 1213  # seed of random captions
    device: str = "auto"  # auto, cpu, cuda, mps
