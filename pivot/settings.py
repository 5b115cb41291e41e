"""Every command's settings: frozen, strict, with the help text beside each field. No torch here.

The comment after a field is what `pivot COMMAND --help` shows. A choice between parts is a union
tagged by `kind`. Settings of `prepare-frames` and `prepare-audio` live in `video_prep.settings`.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator
from tyro.conf import Positional, arg

Positive = Annotated[int, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]

# Positional arguments, named in the usage line as the journey names them.
Shards = Positional[Annotated[str, arg(metavar="SHARDS")]]
TestShards = Positional[Annotated[str, arg(metavar="TEST_SHARDS")]]
RunFolder = Positional[Annotated[str, arg(metavar="RUN")]]


class Settings(BaseModel):
    """Base of all settings: unknown keys are errors, values cannot change after the check."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


# ---- parts ---------------------------------------------------------------------------------


class ClipSettings(Settings):
    """The frozen CLIP (open_clip) that joins images and text."""

    # open_clip name, hf-hub:ORG/NAME, a folder with open_clip_config.json, or tiny-world (ships
    # with Pivot)
    model: str = ""
    pretrained: str = ""  # weights tag or file for an open_clip name, e.g. openai (a tag downloads)


class AudioSettings(Settings):
    """Sound to FBANK: what the audio encoder sees."""

    # Hz that sounds are brought to, or native: each file's own rate
    sample_rate: Positive | Literal["native"] = 16000
    channel: Literal["first", "mean"] = "first"  # channel of a stereo sound that is used
    num_mel_bins: Positive = 128  # mel bins
    frame_length_ms: Annotated[float, Field(gt=0)] = 25.0  # analysis window, milliseconds
    frame_shift_ms: Annotated[float, Field(gt=0)] = 10.0  # step between frames, milliseconds
    low_freq: Annotated[float, Field(ge=0)] = 20.0  # lowest mel edge, Hz
    high_freq: float = 0.0  # highest mel edge, Hz; 0 or less counts down from Nyquist
    num_frames: Positive = 1000  # FBANK frames the encoder sees (1000 x 10 ms = 10 s)
    # plain: random/centre window; vip_ant: with the reference's silence rule
    crop: Literal["plain", "vip_ant"] = "plain"
    # short sounds: raw_zero as VIP-ANT (louder than silence), or mean (0 after normalising)
    pad: Literal["raw_zero", "mean"] = "mean"
    # mean and deviation: shards (SHARDS/fbank.json from measure-fbank), vip_ant, ast, or a JSON
    # file
    norms: str = "shards"
    backend: Literal["torch", "kaldi-native-fbank", "torchaudio"] = "torch"  # who computes FBANK


class MaskSettings(Settings):
    """Masks over the normalised FBANK while training; each length is drawn up to its maximum."""

    time: Annotated[int, Field(ge=0)] = 200  # most frames masked
    freq: Annotated[int, Field(ge=0)] = 32  # most mel bins masked


class VitSettings(Settings):
    """Audio encoder built from the visual ViT of a CLIP (VIP-ANT)."""

    kind: Literal["vit"] = "vit"
    stride: tuple[Positive, Positive] = (16, 24)  # patch step along (time, mel)
    # 3-channel kernel to 1: averaged at each forward (reference), at load, or summed at load
    kernel: Literal["runtime_mean", "load_mean", "load_sum"] = "runtime_mean"
    init: Literal["clip", "random"] = "clip"  # weights at start: CLIP's visual weights, or random
    fresh_projection: bool = False  # start the last projection at random though the rest is CLIP's


class LossSettings(Settings):
    """Contrastive loss between the two sides of a batch."""

    reduction: Literal["sum", "mean"] = "sum"  # of the two directions: sum (VIP-ANT) or mean (CLIP)
    scale_init: Annotated[float, Field(gt=0)] = 1 / 0.07  # scale of the cosines at the start
    scale_max: float | None = None  # upper clamp of the scale; none in VIP-ANT
    learn_scale: bool = True  # train the scale


class LarsSettings(Settings):
    """LARS as VIP-ANT trains; rates are multiplied by batch/256 (effective batch)."""

    kind: Literal["lars"] = "lars"
    lr_weight: Annotated[float, Field(gt=0)] = 0.2  # rate of tensors with more than one axis
    lr_bias: Annotated[float, Field(ge=0)] = 0.0048  # rate of biases, norms and the scale
    momentum: Share = 0.9  # momentum
    eta: Annotated[float, Field(gt=0)] = 0.001  # trust coefficient
    weight_decay: Annotated[float, Field(ge=0)] = 1e-6  # for tensors with more than one axis


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


OptimSettings = Annotated[LarsSettings | AdamWSettings | MuonSettings, Field(discriminator="kind")]


class FitSettings(Settings):
    """What every training command shares."""

    out: str  # run folder; a used one is refused unless --resume
    resume: bool = False  # go on from the last checkpoint in the run folder
    # seed of initialisation, batch order, crops, frames and masks
    seed: Annotated[int, Field(ge=0)] = 1213
    batch_size: Annotated[int, Field(gt=1)] = 64  # clips per optimiser step and micro-batch
    accumulate: Positive = 1  # micro-batches per optimiser step
    epochs: Positive = 25  # passes over the data
    max_steps: int | None = None  # stop after this many optimiser steps instead of the epochs
    warmup_epochs: Annotated[float, Field(ge=0)] = 1.0  # linear warm-up from 0
    final_lr: Share = 0.001  # the cosine ends at this share of the peak rate
    optim: OptimSettings = LarsSettings()  # --optim.kind lars | adamw | muon
    loss: LossSettings = LossSettings()
    mask: MaskSettings = MaskSettings()
    # auto: bf16 where the hardware has it
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    device: str = "auto"  # auto, cpu, cuda, mps
    workers: Annotated[int, Field(ge=0)] = 0  # processes that read sounds; 0 reads in this one
    cache_mb: Annotated[int, Field(ge=0)] = 1024  # memory for prepared FBANK that needs no crop
    checkpoint_every: Positive = 500  # optimiser steps between checkpoints
    log_every: Positive = 10  # optimiser steps between rows of metrics.jsonl
    tensorboard: bool = False  # also write TensorBoard events into the run folder

    @model_validator(mode="after")
    def _steps_are_positive(self) -> FitSettings:
        if self.max_steps is not None and self.max_steps < 1:
            raise ValueError(f"--max-steps must be at least 1, not {self.max_steps}")
        if not math.isfinite(self.warmup_epochs):
            raise ValueError("--warmup-epochs must be finite")
        return self


# ---- commands ------------------------------------------------------------------------------


class MeasureFbank(Settings):
    """Measure the mean and deviation of FBANK over the real frames of the shards."""

    shards: Shards  # folder made by prepare-frames or prepare-audio
    audio: AudioSettings = AudioSettings()
    out: str | None = None  # JSON file; default SHARDS/fbank.json
    workers: Annotated[int, Field(ge=0)] = 0  # processes; the result does not depend on it


class PretrainVa(FitSettings):
    """Train an audio encoder against the frozen CLIP image encoder, on frames and sound alone."""

    shards: Shards  # folder made by prepare-frames
    clip: ClipSettings = ClipSettings()
    audio: AudioSettings = AudioSettings()
    encoder: VitSettings = VitSettings()
    frames: Literal["random", "middle", "mean"] = "random"  # which frame of a clip is its partner
    # store of frame embeddings (pivot embed image); default: encode on the fly
    images: str | None = None
    # FBANK cache of these shards (pivot embed fbank), read instead of sound: rounded to 1/8 nat,
    # and a longer sound is cropped at whole FBANK frames, not at samples
    fbank: str | None = None


class TrainAt(FitSettings):
    """Fine-tune the audio encoder of a run on (sound, caption) pairs; CLIP stays frozen."""

    shards: Shards  # folder whose sounds the pairs name
    model: str  # run or model folder to start from
    pairs: str  # pairs file: Parquet from mine-captions, or CSV / JSON lines with id and caption
    prompt: str = ""  # put before each caption, or a template with {}
    restart_scale: bool = True  # start the scale at loss.scale_init again, as VIP-ANT
    # FBANK cache of these shards (pivot embed fbank), read instead of sound: rounded to 1/8 nat,
    # and a longer sound is cropped at whole FBANK frames, not at samples
    fbank: str | None = None


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


class Evaluate(Settings):
    """Measure a model: zero-shot classification, audio-text and image-audio retrieval."""

    model: RunFolder  # run or model folder
    shards: Shards  # folder with the held-out clips
    out: str  # folder for results.json
    labels: str | None = None  # label list (txt, csv, json); default: the labels in the shards
    captions: str | None = None  # caption file with clip ids; default: the captions in the shards
    prompt: str = "the sound of"  # before a label, or a template with {}
    caption_prompt: str = ""  # before a caption, or a template with {}
    # store of frame embeddings, for image-audio retrieval and pivotability
    images: str | None = None
    # zero-shot score; dot: texts not normalised (as the reference)
    score: Literal["cosine", "dot"] = "cosine"
    batch_size: Positive = 64  # items a batch
    device: str = "auto"  # auto, cpu, cuda, mps


class ScalingCurve(FitSettings):
    """Train on nested subsets of gold pairs and fit the score against log2(pairs)."""

    shards: Shards  # folder whose sounds the pairs name
    test: TestShards  # folder with the held-out clips
    model: str  # run or model folder to start from
    pairs: str  # gold pairs (mine-captions --rule gold, or CSV / JSON lines)
    sizes: tuple[Positive, ...] = ()  # numbers of pairs; default: doubling from 1/128 of all
    seeds: tuple[int, ...] = (1, 2, 3)  # one nested order of the pairs and one training each
    labels: str | None = None  # label list; default: the labels in the test shards
    prompt: str = "the sound of"  # before a label
    target: Share | None = None  # say how many pairs reach this accuracy


class Search(Settings):
    """Find the sounds that a sentence describes, or the captions and sounds nearest to a sound."""

    model: RunFolder  # run or model folder
    text: Positional[Annotated[str, arg(metavar="TEXT")]]  # the sentence; "" with --audio
    # folder of sound files, shards, an audio store, or (with --audio) a caption file
    where: Positional[Annotated[str, arg(metavar="FOLDER_OR_STORE")]]
    k: Annotated[Positive, arg(aliases=("-k",))] = 10  # results
    audio: str | None = None  # sound file to search with instead of the text
    prompt: str = ""  # put before the text, or a template with {}
    out: str | None = None  # also write the results to this JSON file
    device: str = "auto"  # auto, cpu, cuda, mps


class Demo(Settings):
    """Make a small world and run the whole journey on it, from videos to a report."""

    out: str = "demo"  # folder for everything; holds results.json and report.html at the end
    fast: bool = False  # fewer clips and steps: a check that everything works, in under two minutes
    seed: int = 1  # seed of the world's clips and of every training
    clips: int | None = None  # training clips; default 1500 (--fast: fewer)
    open: bool = False  # open the report in a browser at the end
    resume: bool = False  # keep the finished stages of an interrupted demo in --out


class Bench(Settings):
    """Measure what a station costs here, beside its peers, as ratios of one run."""

    what: Positional[Literal["fbank", "train", "match", "prepare", "loader"]]  # station
    out: str | None = None  # also write the figures to this JSON file
    threads: Positive = 1  # threads used by every candidate
    seconds: Annotated[float, Field(gt=0)] = 20.0  # time budget
