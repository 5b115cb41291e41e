"""Parts that several commands have: CLIP, sound to FBANK, encoders of sound and text."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from pivot.settings.base import Positive, Settings


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


class VitSettings(Settings):
    """Audio encoder built from the visual ViT of a CLIP (VIP-ANT)."""

    kind: Literal["vit"] = "vit"
    stride: tuple[Positive, Positive] = (16, 24)  # patch step along (time, mel)
    # 3-channel kernel to 1: averaged at each forward (reference), at load, or summed at load; under
    # LARS the first moves the mean kernel up to 1.73 times as fast as the second
    kernel: Literal["runtime_mean", "load_mean", "load_sum"] = "runtime_mean"
    init: Literal["clip", "random"] = "clip"  # weights at start: CLIP's visual weights, or random
    # positions when a trained encoder is taken to shorter sounds: resized, or as the reference the
    # rows of time after its sixth; longer sounds are always resized from the trained grid
    positions: Literal["bilinear", "slice6"] = "bilinear"
    fresh_projection: bool = False  # start the last projection at random though the rest is CLIP's


class ProjectionSettings(Settings):
    """What brings an encoder's features into the joint space of a model."""

    # none: the features as they are; linear; residual: the block of CLAP, LN(Wx + drop(V gelu(Wx)))
    kind: Literal["none", "linear", "residual"] = "none"
    # size of the joint space; default: the features' own for sound, that of sound for text
    dim: Positive | None = None
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.5  # of the residual block, while it trains

    @model_validator(mode="after")
    def _none_has_no_size(self) -> ProjectionSettings:
        if self.kind == "none" and self.dim is not None:
            raise ValueError(f"dim {self.dim} needs a projection; take kind linear or residual")
        return self


class TextSettings(Settings):
    """Text encoder of a model: the frozen CLIP's, or one of its own that trains with the sounds."""

    # frozen: CLIP's as it is; clip: a copy of it that trains; hf: a transformers model that trains
    kind: Literal["frozen", "clip", "hf"] = "frozen"
    model: str = ""  # for hf: a folder, or a hub id (downloads what is not cached)
    # for hf, how a text's features come about: first token, mean of its tokens, the model's pooler
    pooling: Literal["cls", "mean", "pooler"] = "cls"
    # for hf: most tokens of a text, [CLS] and [SEP] included
    max_tokens: Annotated[int, Field(gt=2)] = 77
    # for hf: what becomes of a text of more tokens
    too_long: Literal["refuse", "cut"] = "refuse"
    # before tokenising; salsa: lower case, without ASCII punctuation
    normalise: Literal["none", "lower", "salsa"] = "none"
    projection: ProjectionSettings = ProjectionSettings()

    @model_validator(mode="after")
    def _model_is_of_hf(self) -> TextSettings:
        if self.kind == "hf" and not self.model:
            raise ValueError("text kind hf needs text.model, a folder or a hub id")
        if self.kind != "hf" and self.model:
            raise ValueError(f"text.model {self.model} goes with text kind hf, not {self.kind}")
        if self.kind == "frozen" and self.projection.kind != "none":
            raise ValueError("the frozen text encoder has no projection; take text kind clip or hf")
        return self
