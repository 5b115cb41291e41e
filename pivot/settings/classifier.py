"""Settings of train-classifier: supervised classification of sounds."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from pivot.settings.base import Positive, Shards, Share
from pivot.settings.parts import ClipSettings, HearsSettings
from pivot.settings.training import FitSettings


class TrainClassifier(HearsSettings, FitSettings):
    """Train a classifier of sounds on labelled shards: a head, and the last layers of a model."""

    shards: Shards  # labelled clips; with folds, each is the test set once
    # run or model folder to start from; none: start from --clip as pretrain-va, or from an
    # --encoder of another kind with random weights
    model: str = ""
    # labelled shards to test on, instead of the folds of SHARDS or (VGGSound) the clips that its
    # own list names test
    test: str | None = None
    # label list: those of it that some clip has are the classes; default: the labels in the shards
    labels: str | None = None
    # norm: LayerNorm, linear, learnable scale (VIP-ANT's code); linear: one linear layer (its
    # paper, LAION-CLAP); mlp: linear to 1024, ReLU, dropout, linear (LAION-CLAP)
    head: Literal["norm", "linear", "mlp"] = "norm"
    # what the head sees, not normalised: features in the model's space, or those before the
    # projection (--project) where the model has one
    features: Literal["projected", "encoder"] = "projected"
    # blocks of the encoder that train with the head, counted from the last, with the last norm and
    # the projection; 0: the head alone (a linear probe); all: everything
    last_layers: Annotated[int, Field(ge=0)] | Literal["all"] = "all"
    # factor on the rate of the encoder, beside the head's, which is that of --optim
    encoder_rate: Annotated[float, Field(gt=0)] = 1.0
    # cross_entropy: one label a clip; bce, mse (squared error): any number; auto: by the labels
    target: Literal["auto", "cross_entropy", "bce", "mse"] = "auto"
    # what is reported and chooses the checkpoint; map, mauc: unweighted means over classes of the
    # average precision and of the area under the ROC; auto: map for bce or several labels a clip,
    # else accuracy
    metric: Literal["auto", "accuracy", "map", "mauc"] = "auto"
    mixup: Share = 0.0  # share of the clips that are mixed with another one (sounds and labels)
    # what is mixed: waveforms, with any other clip (AST), or what the encoder sees, with the clip
    # at the mirrored place of the batch (LAION-CLAP)
    mixup_of: Literal["waveform", "spectrogram"] = "waveform"
    # Beta(b, b) draws how much of each (AST: 10, LAION-CLAP: 0.5)
    mixup_beta: Annotated[float, Field(gt=0)] = 10.0
    balanced: bool = False  # draw clips by the weight of their classes: 1000 / (count + 1) each
    # share of the training clips that chooses the checkpoint, taken class by class; 0: the last
    # one; split: the clips that the data set's own list names validation (FSD50K)
    validation: Annotated[float, Field(ge=0, lt=1)] | Literal["split"] = 0.1
    # vip_ant: choose the checkpoint on the test clips as the reference does, and say so in the
    # result; with bce also its sounds: channel first, then the mean, and no window
    compat: Literal["none", "vip_ant"] = "none"
    folds: tuple[Positive, ...] = ()  # folds to test on; default: all
    # frames of a window that the encoder sees, where other than the model was trained with;
    # positions are resized from the trained grid, or cut (passt, atst)
    num_frames: Positive | None = None
    clip: ClipSettings = ClipSettings()  # without --model

    @model_validator(mode="after")
    def _no_captions(self) -> TrainClassifier:
        if self.loss.mlp or self.loss.kappa:
            raise ValueError("--loss.mlp and --loss.kappa are for sounds and captions (train-at)")
        return self
