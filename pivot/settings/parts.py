"""Parts that several commands have: CLIP, sound to FBANK, the audio encoder."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

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
