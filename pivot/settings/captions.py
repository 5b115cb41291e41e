"""Settings of the commands that make (sound, caption) pairs and choose clips for them."""

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
    out: str  # pairs file: .parquet, or as VIP-ANT's authors keep them: X_cap.csv, X.json
    # nearest captions (AC, VC, FC); random captions (RC); each clip's own captions (GC); its
    # labels in words (GL)
    rule: Literal["pivot", "random", "gold", "labels"] = "pivot"
    clip: ClipSettings = ClipSettings()  # default: the CLIP that made the image store
    # put before each caption when it is embedded; labels: before each label in the pair itself
    prompt: str = ""
    top_k: Positive = 10  # captions a frame; random: captions a clip
    frames: Literal["all", "middle"] = "all"  # union over all frames of a clip, or its middle one
    joined: bool = False  # labels: one pair a clip with all its labels, instead of one a label
    ids: str | None = None  # only the clips in this list of ids (txt, csv, json)
    seed: int = 1213  # seed of random captions
    device: str = "auto"  # auto, cpu, cuda, mps


class ConvertPairs(Settings):
    """Read a pairs file of any layout and write it in another, with what was counted."""

    # Parquet, CSV, JSON lines, X_cap.csv (with X_map.csv beside it), or {id: [caption ids]} JSON
    pairs: Positional[Annotated[str, arg(metavar="PAIRS")]]
    out: str  # .parquet, .csv, .jsonl, X_cap.csv (X_map.csv is written too), or .json
    captions: str | None = None  # caption file for the ids of a {id: [caption ids]} JSON
    ids: str | None = None  # only the clips in this list of ids (txt, csv, json)


class Balance(Settings):
    """Choose training clips by their nearness to a balanced set: its k nearest sounds each."""

    store: Positional[Annotated[str, arg(metavar="AUDIO_STORE")]]  # store of the training sounds
    # store of the balanced set's sounds
    queries: Positional[Annotated[str, arg(metavar="BALANCED_STORE")]]
    out: str  # list of clip ids, one a line: for --clips of pretrain-va
    k: Positive = 100  # nearest training clips of each balanced clip
    device: str = "auto"  # auto, cpu, cuda, mps
