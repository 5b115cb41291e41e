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
    # captions: a file (txt, csv, tsv, jsonl, COCO json, X_map.csv), a folder of such files, shards
    # with captions, or a text store (pivot embed text). labels: shards with labels, or a table with
    # the columns id and labels (csv; several labels separated by ;)
    captions: Positional[Annotated[str, arg(metavar="CAPTIONS")]]
    # pairs file: .parquet, .csv, .jsonl; or as VIP-ANT's authors keep them: X_cap.csv (pivot: a
    # line a frame) or X.json, with the captions in X_map.csv
    out: str
    # nearest captions (AC, VC, FC); random captions, drawn once (RC; train-at --redraw draws anew
    # at every access, as the reference); each clip's own captions (GC); its labels in words (GL)
    rule: Literal["pivot", "random", "gold", "labels"] = "pivot"
    clip: ClipSettings = ClipSettings()  # default: the CLIP that made the image store
    # put before each caption when it is embedded; labels: before each label in the pair itself, so
    # that train-at needs none
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
    out: str  # .parquet, .csv, .jsonl, X_cap.csv or .json (these two write X_map.csv, too)
    # captions of X_cap.csv or {id: [caption ids]}: X_map.csv, or any caption file with these ids;
    # default: X_map.csv beside it
    captions: str | None = None
    ids: str | None = None  # only the clips in this list of ids (txt, csv, json)


class Balance(Settings):
    """Choose training clips by their nearness to a balanced set: its k nearest sounds each."""

    store: Positional[Annotated[str, arg(metavar="AUDIO_STORE")]]  # store of the training sounds
    # store of the balanced set's sounds
    queries: Positional[Annotated[str, arg(metavar="BALANCED_STORE")]]
    # list of clip ids, one a line: for --clips of pretrain-va; OUT.about.json says how often each
    # was chosen
    out: str
    k: Positive = 100  # nearest training clips of each balanced clip
    # name a clip as often as it was chosen, so that it counts as often in training; default: once
    repeat: bool = False
    device: str = "auto"  # auto, cpu, cuda, mps
