"""Settings of the commands that make (sound, caption) pairs and choose clips for them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from tyro.conf import Positional, arg

from pivot.settings.base import Positive, Settings, Share
from pivot.settings.parts import ClipSettings

Cosine = Annotated[float, Field(ge=-1, le=1, allow_inf_nan=False)]


class MineCaptions(Settings):
    """Make (sound, caption) pairs without labels: through the image pivot, or by a teacher."""

    # store of frames (pivot embed image); du, ads: of the sounds, by the teacher; ds: any store of
    # the teacher's
    images: Positional[Annotated[str, arg(metavar="STORE")]]
    # captions: a file (txt, csv, tsv, jsonl, COCO json, X_map.csv), a folder of such files, shards
    # with captions, or a text store (pivot embed text). labels: shards with labels, or a table with
    # the columns id and labels (csv; several labels separated by ;). ds: a pairs file, or captions
    # that name their clips; du, ads: also the captions of a pairs file (.parquet)
    captions: Positional[Annotated[str, arg(metavar="CAPTIONS")]]
    # pairs file: .parquet, .csv, .jsonl; or as VIP-ANT's authors keep them: X_cap.csv (pivot: a
    # line a frame) or X.json, with the captions in X_map.csv
    out: str
    # nearest captions (AC, VC, FC); random captions, drawn once (RC; train-at --redraw draws anew
    # at every access, as the reference); each clip's own captions (GC); its labels in words (GL);
    # du: every pair that the teacher finds near; ds: the pairs with captions near the labels; ads:
    # du with such captions only
    rule: Literal["pivot", "random", "gold", "labels", "du", "ds", "ads"] = "pivot"
    clip: ClipSettings = ClipSettings()  # default: the CLIP that made the image store
    # du, ds, ads: the teacher's run or model folder, to embed what no store holds; default: the
    # CLIP that made the store
    model: str | None = None
    # put before each caption when it is embedded; labels: before each label in the pair itself, so
    # that train-at needs none
    prompt: str = ""
    # captions a frame (default 10); random: captions a clip (10); du, ads: a sound's nearest that
    # are looked at (all)
    top_k: Positive | None = None
    frames: Literal["all", "middle"] = "all"  # union over all frames of a clip, or its middle one
    joined: bool = False  # labels: one pair a clip with all its labels, instead of one a label
    ids: str | None = None  # only the clips in this list of ids (txt, csv, json)
    threshold: Cosine | None = None  # du, ads: all pairs from this cosine on
    quantile: Share | None = None  # du, ads: instead, from this quantile of all pairs' cosines on
    wanted: Positive | None = None  # du, ads: instead, this number of pairs, the nearest
    max_per_caption: Positive | None = None  # du, ads: then a caption's nearest sounds alone
    max_per_audio: Positive | None = None  # du, ads: then a sound's nearest captions alone
    # du, ads: refuse to write more pairs than this (with their number, before anything is written)
    most: Positive = 20_000_000
    labels: str | None = None  # ds, ads: label file, shards with labels, or text store
    label_prompt: str = "this is a sound of"  # ds, ads: put before each label
    label_threshold: Cosine | None = None  # ds, ads: least cosine of a caption with a label
    # pivot: store of the clips' sounds: a caption's score is (1 - mix) * cosine with the frame +
    # mix * cosine with the sound
    audio: str | None = None
    # text store by the model of --audio, with every caption; default: the captions as CLIP embeds
    # them. ds, ads: text store of the teacher with every caption
    texts: str | None = None
    mix: Share = 0.5  # pivot with --audio: weight of the sound
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
