"""Settings of import-checkpoint: models that the authors released."""

from __future__ import annotations

from typing import Annotated, Literal

from tyro.conf import Positional, arg

from pivot.settings.base import Positive, Settings
from pivot.settings.parts import ClipSettings


class TextSource(Settings):
    """Where the shape and the tokenizer of a checkpoint's text encoder come from."""

    # folder or hub id of the transformers model it started from (LAION-CLAP: roberta-base, MS-CLAP
    # 2022: bert-base-uncased, SALSA: roberta-large); its weights are the checkpoint's. Default:
    # what lies beside a Hugging Face CLAP
    model: str = ""


class ImportCheckpoint(Settings):
    """Turn a checkpoint that authors released into a model, checked key by key."""

    # FILE.pth, .pt, .ckpt, .bin, .safetensors, or the folder of a Hugging Face CLAP: weights and
    # settings; nothing it contains is executed
    checkpoint: Positional[Annotated[str, arg(metavar="FILE")]]
    out: str  # run folder for the model
    # whose checkpoint it is; auto: as the names of its weights tell
    family: Literal[
        "auto",
        "vip-ant",
        "laion-clap",
        "hf-clap",
        "ms-clap",
        "salsa",
        "panns",
        "passt",
        "efficientat",
        "atst",
        "htsat",
        "ast",
        "wav2clip",
        "audioclip",
    ] = "auto"
    text: TextSource = TextSource()
    # of a model of sound and text, the audio encoder and its projection alone; needs no tokenizer
    audio_only: bool = False
    # of VIP-ANT: the CLIP that it was trained with
    clip: ClipSettings = ClipSettings(model="ViT-B-32-quickgelu", pretrained="openai")
    # of VIP-ANT: patch step along (time, mel); this and the next three: default as the
    # checkpoint's own settings say, and where they say nothing as the paper's models
    stride: tuple[Positive, Positive] | None = None
    # frames of a window: of VIP-ANT, those that it was trained with, e.g. 1000; of the others,
    # another length than they were trained with
    num_frames: Positive | None = None
    num_mel_bins: Positive | None = None  # of VIP-ANT: mel bins, e.g. 128
    # of VIP-ANT: mean and deviation of FBANK: vip_ant, ast, or a JSON file
    norms: str | None = None
    # of VIP-ANT: positions for shorter sounds: the reference's rows after the sixth, or resized
    positions: Literal["slice6", "bilinear"] = "slice6"
    # Hz that sounds are brought to, where the encoder has a mel bank of another rate: CLAP gives
    # its CNN14 44100 Hz through the bank of 32000 Hz; default: the rate it was trained at
    sample_rate: Positive | None = None
    ignore_unknown: bool = False  # leave out weights that the encoders do not have
