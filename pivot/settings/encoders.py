"""Audio encoders of every kind, and the front end that each was published with."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from pivot.settings.base import Positive, Settings, Share


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


class AstSettings(Settings):
    """AST (transformers' ASTModel): a ViT over FBANK with a class and a distillation token."""

    kind: Literal["ast"] = "ast"
    width: Positive = 768  # numbers of a token
    depth: Positive = 12  # blocks
    heads: Positive = 12  # attention heads
    patch: Positive = 16  # frames and mel bins of a patch
    stride: tuple[Positive, Positive] = (10, 10)  # patch step along (time, mel)


class PasstSettings(Settings):
    """PaSST: a ViT with positions of time and of frequency, and patches left out in training."""

    kind: Literal["passt"] = "passt"
    width: Positive = 768  # numbers of a token
    depth: Positive = 12  # blocks
    heads: Positive = 12  # attention heads
    patch: Positive = 16  # frames and mel bins of a patch
    stride: tuple[Positive, Positive] = (16, 16)  # patch step along (time, mel)
    # columns of time and rows of frequency that are left out in training (SALSA: 15 and 2)
    patchout_time: Annotated[int, Field(ge=0)] = 0
    patchout_freq: Annotated[int, Field(ge=0)] = 0


class AtstSettings(Settings):
    """ATST-Frame: a ViT whose tokens are frames of 40 ms."""

    kind: Literal["atst"] = "atst"
    width: Positive = 768  # numbers of a token
    depth: Positive = 12  # blocks
    heads: Positive = 12  # attention heads
    patch: Positive = 4  # log-mel frames of a token
    drop_path: Share = 0.0  # share of blocks' branches that are left out in training


class MobileNetSettings(Settings):
    """MobileNetV3 (EfficientAT): mn04 to mn40 are width_mult 0.4 to 4.0."""

    kind: Literal["mobilenet"] = "mobilenet"
    width_mult: Annotated[float, Field(gt=0)] = 4.0  # channels, as a multiple of mn10's


# How the shrunk whole of a longer sound and its windows become one; needs audio.views fusion. iaff:
# as LAION's code, whose second attention reuses the first's global branch, or textbook.
Fusion = Literal[
    "none",
    "aff_2d",
    "iaff_2d",
    "iaff_2d_textbook",
    "daf_2d",
    "aff_1d",
    "iaff_1d",
    "iaff_1d_textbook",
    "daf_1d",
    "channel_map",
]


class Cnn14Settings(Settings):
    """CNN14 (PANNs): six blocks of two convolutions."""

    kind: Literal["cnn14"] = "cnn14"
    channels: tuple[Positive, ...] = (64, 128, 256, 512, 1024, 2048)  # of the blocks
    dropout: Share = 0.2  # after each block, in training
    dropout_out: Share = 0.5  # around the last linear layer, in training
    # stripes of time and of frequency that are masked in training, as HTSAT's (LAION; PANNs and
    # MS-CLAP train without them here)
    stripes: bool = False
    fusion: Fusion = "none"  # as HTSAT's


HTSAT_SIZES: dict[str, tuple[int, tuple[int, ...]]] = {
    "tiny": (96, (2, 2, 6, 2)),
    "base": (128, (2, 2, 12, 2)),
    "large": (256, (2, 2, 12, 2)),
}


class HtsatSettings(Settings):
    """HTSAT (transformers' ClapAudioModel): a Swin transformer over a folded log-mel."""

    kind: Literal["htsat"] = "htsat"
    size: Literal["tiny", "base", "large"] = "tiny"  # sets width and depths
    width: Positive | None = None  # numbers of a token in the first stage; default: of the size
    depths: tuple[Positive, ...] | None = None  # blocks of the stages; default: of the size
    heads: tuple[Positive, ...] = (4, 8, 16, 32)  # attention heads of the stages
    spec_size: Positive = 256  # rows and columns of the folded log-mel
    window: Positive = 8  # rows and columns of tokens that attend to each other
    drop_path: Share = 0.1  # share of blocks' branches that are left out in training
    # stripes of time and of frequency that are masked in training (LAION: 2 of up to 64 frames, 2
    # of up to 8 bins), after the first batch norm
    stripes: bool = True
    fusion: Fusion = "none"

    def shape(self) -> tuple[int, tuple[int, ...]]:
        """Width of the first stage, and blocks of each stage."""
        width, depths = HTSAT_SIZES[self.size]
        return self.width or width, self.depths or depths


EncoderSettings = Annotated[
    VitSettings
    | AstSettings
    | PasstSettings
    | AtstSettings
    | MobileNetSettings
    | Cnn14Settings
    | HtsatSettings,
    Field(discriminator="kind"),
]

# Front ends that the kinds were published with (curation_and_distillation: PANNs, PaSST,
# ATST-Frame, EfficientAT, LAION-CLAP; AST: 1024 frames of FBANK); vit sees plain FBANK.
FUSED = {
    "kind": "htk_db", "sample_rate": 48000, "hop": 480, "low_freq": 50.0, "high_freq": 14000.0,
    "top_db": None, "scaled": False, "views": "fusion", "fill": "repeatpad",
}  # fmt: skip
OWN_FRONT_END: dict[str, dict[str, Any]] = {
    "vit": {"kind": "fbank"},
    "ast": {"kind": "fbank", "channel": "mean", "num_frames": 1024, "norms": "ast"},
    "passt": {"kind": "htk_log"},
    "mobilenet": {"kind": "htk_log"},
    "atst": {"kind": "htk_db"},
    "cnn14": {"kind": "slaney_db"},
    "htsat": {"kind": "slaney_db", "sample_rate": 48000, "hop": 480, "fill": "repeatpad"},
}
# Hz that each kind was trained at, by its authors or in a CLAP; another rate is refused.
RATES: dict[str, tuple[int, ...]] = {
    "ast": (16000,),
    "passt": (32000,),
    "mobilenet": (32000,),
    "atst": (16000,),
    "cnn14": (16000, 32000, 44100, 48000),
    "htsat": (32000, 44100, 48000),
}
# Settings that matter only in training: a model may be trained on with others than it had.
TRAINING_ONLY = {
    "patchout_time",
    "patchout_freq",
    "drop_path",
    "dropout",
    "dropout_out",
    "stripes",
}


def own_front_end(encoder: dict[str, Any] | Settings) -> dict[str, Any]:
    """Settings of the front end that an encoder was published with, as a dictionary with `kind`."""
    found = encoder.model_dump() if isinstance(encoder, Settings) else encoder
    kind = str(found.get("kind", "vit"))
    if found.get("fusion", "none") != "none":
        rate = {"sample_rate": 48000, "hop": 480} if kind == "htsat" else {}
        return FUSED | rate
    return OWN_FRONT_END.get(kind, {"kind": "fbank"})
