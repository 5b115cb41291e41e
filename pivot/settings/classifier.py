"""Settings of train-classifier: supervised classification of sounds."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from pivot.settings.base import Positive, Shards, Share
from pivot.settings.parts import AudioSettings, ClipSettings, VitSettings
from pivot.settings.training import FitSettings


class TrainClassifier(FitSettings):
    """Train a classifier of sounds on labelled shards: a head, and the last layers of a model."""

    shards: Shards  # labelled clips; with folds, each is the test set once
    model: str = ""  # run or model folder to start from; none: start from --clip as pretrain-va
    test: str | None = None  # labelled shards to test on, instead of the folds of SHARDS
    # label list: those of it that some clip has are the classes; default: the labels in the shards
    labels: str | None = None
    # norm: LayerNorm, linear, learnable scale (VIP-ANT's code); linear: one linear layer (paper)
    head: Literal["norm", "linear"] = "norm"
    # blocks of the encoder that train with the head, counted from the last, with the last norm and
    # the projection; 0: the head alone; all: everything
    last_layers: Annotated[int, Field(ge=0)] | Literal["all"] = "all"
    # cross_entropy: one label a clip; bce: any number; auto: by the labels
    target: Literal["auto", "cross_entropy", "bce"] = "auto"
    mixup: Share = 0.0  # share of the clips that are mixed with another one (waveforms and labels)
    mixup_beta: Annotated[float, Field(gt=0)] = 10.0  # Beta(b, b) draws how much of each (AST: 10)
    balanced: bool = False  # draw clips by the weight of their classes: 1000 / (count + 1) each
    # share of the training clips that chooses the checkpoint, taken class by class; 0: the last one
    validation: Annotated[float, Field(ge=0, lt=1)] = 0.1
    # vip_ant: choose the checkpoint on the test clips as the reference does, and say so in the
    # result; with bce also its sounds: channel first, then the mean, and no window
    compat: Literal["none", "vip_ant"] = "none"
    folds: tuple[Positive, ...] = ()  # folds to test on; default: all
    # FBANK frames the encoder sees, where other than the model was trained with; positions are
    # resized from the trained grid
    num_frames: Positive | None = None
    clip: ClipSettings = ClipSettings()  # without --model
    audio: AudioSettings = AudioSettings()  # without --model
    encoder: VitSettings = VitSettings()  # without --model
