"""Settings of the trainings, and the parts that only trainings have: masks, loss, optimisers."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from pivot.settings.base import Positive, Settings, Shards, Share
from pivot.settings.parts import ClipSettings, HearsSettings, ProjectionSettings, TextSettings
from pivot.settings.targets import ReplaySettings as ReplaySettings
from pivot.settings.targets import TargetSettings as TargetSettings


class MaskSettings(Settings):
    """Masks over the normalised FBANK while training; each length is drawn up to its maximum."""

    # plain: numpy's generator; vip_ant: torch.rand in float32, number for number as the reference
    rule: Literal["plain", "vip_ant"] = "plain"
    time: Annotated[int, Field(ge=0)] = 200  # most frames masked
    freq: Annotated[int, Field(ge=0)] = 32  # most mel bins masked

    @model_validator(mode="before")
    @classmethod
    def _rule_alone(cls, value: Any) -> Any:
        """`mask: vip_ant` in a file is its rule."""
        return {"rule": value} if isinstance(value, str) else value


class LossSettings(Settings):
    """Contrastive loss between the two sides of a batch."""

    reduction: Literal["sum", "mean"] = "sum"  # of the two directions: sum (VIP-ANT) or mean (CLIP)
    scale_init: Annotated[float, Field(gt=0)] = 1 / 0.07  # scale of the cosines at the start
    scale_max: float | None = None  # upper clamp of the scale; none in VIP-ANT
    scale_min: Annotated[float, Field(gt=0)] | None = None  # lower clamp of the scale (LAION: 1)
    # forward: of the scale in the loss, without a gradient beyond the clamps; step: of the learnt
    # number after every step (LAION-CLAP)
    scale_clamp: Literal["forward", "step"] = "forward"
    # upper clamp of the scaled cosines, the scale itself being free (CLAP: 100); none in VIP-ANT
    logit_max: Annotated[float, Field(gt=0)] | None = None
    learn_scale: bool = True  # train the scale
    # sounds meet what a small MLP makes of the captions and the other way round, with a scale each
    # (LAION-CLAP's mlp_loss); the MLPs train with the rest and are no part of the model
    mlp: bool = False
    # weigh items by exp(mean cosine to the batch / kappa) (LAION-CLAP's weighted loss); 0: alike
    kappa: Annotated[float, Field(ge=0)] = 0.0

    @model_validator(mode="after")
    def _clamps_leave_a_scale(self) -> LossSettings:
        low, high = self.scale_min or 0.0, math.inf if self.scale_max is None else self.scale_max
        if high <= 0 or low > high:
            raise ValueError(
                f"--loss.scale-min {self.scale_min} and --loss.scale-max "
                f"{self.scale_max} leave no scale; give 0 < min <= max"
            )
        return self


class TermSettings(Settings):
    """Weights of the three terms of the loss, each with a scale of its own; 0 leaves a term out."""

    audio_text: Annotated[float, Field(ge=0)] = 1.0  # sounds and captions (AT)
    image_audio: Annotated[float, Field(ge=0)] = 0.0  # frames and sounds (VA); 1 as well: VAT
    image_text: Annotated[float, Field(ge=0)] = 0.0  # frozen frames and captions: its scale only

    @model_validator(mode="after")
    def _some_term_has_sounds(self) -> TermSettings:
        if not self.audio_text and not self.image_audio:
            raise ValueError("--terms needs a weight for audio_text or image_audio, or both")
        return self


class LarsSettings(Settings):
    """LARS as VIP-ANT trains; rates are multiplied by batch/256 (effective batch)."""

    kind: Literal["lars"] = "lars"
    lr_weight: Annotated[float, Field(gt=0)] = 0.2  # rate of tensors with more than one axis
    lr_bias: Annotated[float, Field(ge=0)] = 0.0048  # rate of biases, norms and the scale
    momentum: Share = 0.9  # momentum
    eta: Annotated[float, Field(gt=0)] = 0.001  # trust coefficient
    weight_decay: Annotated[float, Field(ge=0)] = 1e-6  # for tensors with more than one axis


class AdamSettings(Settings):
    """Adam with L2 decay, as VIP-ANT trains its AudioSet classifiers (paper, Table 5)."""

    kind: Literal["adam"] = "adam"
    lr: Annotated[float, Field(gt=0)] = 5e-5  # peak rate
    weight_decay: Annotated[float, Field(ge=0)] = 1e-7  # for tensors with more than one axis
    betas: tuple[Share, Share] = (0.9, 0.999)  # moment decays


class AdamWSettings(Settings):
    """AdamW."""

    kind: Literal["adamw"] = "adamw"
    lr: Annotated[float, Field(gt=0)] = 1e-3  # peak rate
    weight_decay: Annotated[float, Field(ge=0)] = 0.01  # for tensors with more than one axis
    betas: tuple[Share, Share] = (0.9, 0.98)  # moment decays


class MuonSettings(Settings):
    """Muon for the matrices of the blocks, AdamW for the rest: for small and short runs."""

    kind: Literal["muon"] = "muon"
    lr: Annotated[float, Field(gt=0)] = 0.02  # peak rate of the matrices
    adamw_lr: Annotated[float, Field(gt=0)] = 1e-3  # peak rate of everything else
    momentum: Share = 0.95  # momentum of the matrices
    weight_decay: Annotated[float, Field(ge=0)] = 0.0  # for the matrices


OptimSettings = Annotated[
    LarsSettings | AdamSettings | AdamWSettings | MuonSettings, Field(discriminator="kind")
]


class FitSettings(Settings):
    """What every training command shares."""

    out: str  # run folder; a used one is refused unless --resume
    resume: bool = False  # go on from the last checkpoint in the run folder
    # seed of initialisation, batch order, crops, frames and masks
    seed: Annotated[int, Field(ge=0)] = 1213
    # clips of a micro-batch, of all processes together: each is contrasted with all the others
    batch_size: Annotated[int, Field(gt=1)] = 64
    accumulate: Positive = 1  # micro-batches per optimiser step
    # clips that are encoded at a time where a batch is larger than memory: its gradient is exact,
    # each sound is encoded twice (GradCache); 0: the whole batch at once
    grad_cache: Annotated[int, Field(ge=0)] = 0
    epochs: Positive = 25  # passes over the data
    max_steps: int | None = None  # stop after this many optimiser steps instead of the epochs
    warmup_epochs: Annotated[float, Field(ge=0)] = 1.0  # linear warm-up from 0
    warmup_steps: Annotated[int, Field(ge=0)] | None = None  # warm-up in steps, instead of epochs
    # steps between two rates of the warm-up (the reference's Adam: 50); 1: linear
    warmup_every: Positive = 1
    # a linear warm-up goes from 0, or from the first of its parts, 1 / warm-up (LAION-CLAP)
    warmup_from: Literal["zero", "first"] = "zero"
    final_lr: Share = 0.001  # the cosine ends at this share of the peak rate
    # epoch at which it ends, the rate staying there (SALSA: 15 of 20); default: with the training
    cosine_epochs: Annotated[float, Field(gt=0)] | None = None
    # epochs at which the rate is multiplied by gamma, instead of the cosine
    milestones: tuple[Annotated[float, Field(ge=0)], ...] = ()
    # where milestones are counted from (the reference: warmup by steps, start by epochs)
    milestones_from: Literal["warmup", "start"] = "warmup"
    gamma: Share = 0.5  # factor at a milestone
    # most length of the whole gradient of a step, which is shortened to it (CLAP: 5); none: as is
    max_grad: Annotated[float, Field(gt=0)] | None = None
    optim: OptimSettings = LarsSettings()  # --optim.kind lars | adam | adamw | muon
    loss: LossSettings = LossSettings()
    mask: MaskSettings = MaskSettings()
    # auto: bf16 where the hardware has it
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    device: str = "auto"  # auto, cpu, cuda, mps
    # processes that share a batch (data parallel), one a GPU; under torchrun its own number counts
    processes: Positive = 1
    workers: Annotated[int, Field(ge=0)] = 0  # processes that read sounds; 0 reads in this one
    cache_mb: Annotated[int, Field(ge=0)] = 1024  # memory for prepared FBANK that needs no crop
    checkpoint_every: Positive = 500  # optimiser steps between checkpoints
    keep_epochs: Annotated[int, Field(ge=0)] = 0  # keep the model after every so many epochs, too
    log_every: Positive = 10  # optimiser steps between rows of metrics.jsonl
    tensorboard: bool = False  # also write TensorBoard events into the run folder
    # lists whose clips are left out of the training (a table of a test set, WavCaps's
    # blacklist_exclude_*.json, ids): by Freesound or YouTube id, by sound, or by name
    exclude: tuple[str, ...] = ()
    # held-out shards, pairs files or id lists: a clip of theirs among the training clips stops the
    # training with the count (as pivot check-overlap finds it)
    held_out: tuple[str, ...] = ()
    allow_overlap: tuple[str, ...] = ()  # those of the held-out sets that may overlap, by name

    @model_validator(mode="after")
    def _steps_are_positive(self) -> FitSettings:
        if self.max_steps is not None and self.max_steps < 1:
            raise ValueError(f"--max-steps must be at least 1, not {self.max_steps}")
        if not math.isfinite(self.warmup_epochs):
            raise ValueError("--warmup-epochs must be finite")
        return self


class PretrainVa(HearsSettings, FitSettings):
    """Train an audio encoder against the frozen CLIP image encoder, on frames and sound alone."""

    shards: Shards  # folder made by prepare-frames
    clip: ClipSettings = ClipSettings()
    # run or model folder whose audio encoder and front end it starts from, such as a PaSST of
    # import-checkpoint; none: --encoder and --audio
    model: str = ""
    # after the audio encoder, into CLIP's space, which a kind other than vit needs
    project: ProjectionSettings = ProjectionSettings()
    # which frame of a clip is its partner, or their mean, or all of them, each a partner
    frames: Literal["random", "middle", "mean", "all"] = "random"
    # soft: how alike the frozen CLIP finds the frames of two clips
    targets: TargetSettings = TargetSettings()
    clips: str | None = None  # ids of the clips to train on (txt, csv, json); default: all
    # held-out shards with frames and labels: retrieval by label set after every epoch
    validation: str | None = None
    # store of frame embeddings (pivot embed image); default: encode on the fly
    images: str | None = None
    # FBANK cache of these shards (pivot embed fbank), read instead of sound: rounded to 1/8 nat,
    # and a longer sound is cropped at whole FBANK frames, not at samples
    fbank: str | None = None

    @model_validator(mode="after")
    def _targets_of_frames(self) -> PretrainVa:
        if self.targets.kind == "estimated" or self.targets.teachers:
            raise ValueError(
                "--targets of pretrain-va are diagonal, same_recording or soft, without teachers: "
                "the frozen CLIP is the teacher"
            )
        if self.loss.mlp or self.loss.kappa:
            raise ValueError("--loss.mlp and --loss.kappa are for sounds and captions (train-at)")
        return self


class TrainAt(HearsSettings, FitSettings):
    """Train on (sound, caption) pairs: the audio encoder, with CLIP frozen, or both encoders."""

    shards: Shards  # folder whose sounds the pairs name
    model: str = ""  # run or model folder to start from; none: start from --clip as pretrain-va
    # pairs file: from mine-captions or pivot pairs, or CSV / JSON lines; or shards, also LAION's
    # tars, for the captions of their clips
    pairs: str
    # captions of LAION's tars where --pairs names such a folder: none: `text`; all: also the
    # written ones (`text_augment_all`); augment_only: that of T5 (`text_augment_t5`) where there is
    select_text: Literal["none", "all", "augment_only"] = "none"
    prompt: str = ""  # put before each caption, or a template with {}
    # the caption of another clip at random, drawn again at every access (RC as the reference)
    redraw: bool = False
    # what an epoch goes through: each clip once, with one of its captions, or every pair
    items: Literal["clips", "pairs"] = "clips"
    targets: TargetSettings = TargetSettings()  # of the sounds and captions
    replay: ReplaySettings = ReplaySettings()
    texts: str | None = None  # store of the captions' embeddings (pivot embed text)
    terms: TermSettings = TermSettings()  # --terms.image-audio 1: frames as well (VAT)
    frames: Literal["random", "middle", "mean"] = "random"  # which frame, where frames have a term
    images: str | None = None  # store of frame embeddings; default: encode on the fly
    restart_scale: bool = True  # start the scale at loss.scale_init again, as VIP-ANT
    clip: ClipSettings = ClipSettings()  # without --model; a CLAP with a text encoder needs none
    # text encoder: CLIP's frozen one, or one that trains with the sounds (a CLAP)
    text: TextSettings = TextSettings()
    project: ProjectionSettings = ProjectionSettings()  # after the audio encoder
    # FBANK cache of these shards (pivot embed fbank), read instead of sound: rounded to 1/8 nat,
    # and a longer sound is cropped at whole FBANK frames, not at samples
    fbank: str | None = None

    @model_validator(mode="after")
    def _targets_of_captions(self) -> TrainAt:
        if self.redraw and self.items == "pairs":
            raise ValueError("--redraw takes captions of other clips; it goes with --items clips")
        if self.targets.kind in ("soft", "estimated") and not self.terms.audio_text:
            raise ValueError(
                f"--targets.kind {self.targets.kind} is for sounds and captions; give "
                "--terms.audio-text a weight"
            )
        if self.loss.mlp or self.loss.kappa:
            if not self.terms.audio_text:
                raise ValueError("--loss.mlp and --loss.kappa need --terms.audio-text")
            if self.targets.kind in ("soft", "estimated"):
                raise ValueError(
                    f"--loss.mlp and --loss.kappa do not go with --targets.kind "
                    f"{self.targets.kind}; take diagonal or same_recording"
                )
        return self
