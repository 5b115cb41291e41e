"""Sound to what an audio encoder sees: Kaldi's FBANK, and the log-mel of four encoder families.

Every kind has a rate, mel bins, frames of one window, windows of a long sound, and a channel.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from pivot.settings.base import Positive, Settings

Hz = Annotated[float, Field(ge=0)]


class AudioSettings(Settings):
    """Sound to FBANK (Kaldi): what the ViT that starts from a CLIP, and AST, see."""

    kind: Literal["fbank"] = "fbank"
    # Hz that sounds are brought to, or native: each file's own rate
    sample_rate: Positive | Literal["native"] = 16000
    channel: Literal["first", "mean"] = "first"  # channel of a stereo sound that is used
    num_mel_bins: Positive = 128  # mel bins
    frame_length_ms: Annotated[float, Field(gt=0)] = 25.0  # analysis window, milliseconds
    frame_shift_ms: Annotated[float, Field(gt=0)] = 10.0  # step between frames, milliseconds
    low_freq: Hz = 20.0  # lowest mel edge, Hz
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


class MelSettings(Settings):
    """What the log-mel front ends share: a short-time Fourier transform and a mel bank."""

    sample_rate: Positive = 32000  # Hz that sounds are brought to
    channel: Literal["first", "mean"] = "mean"  # channel of a stereo sound that is used
    num_mel_bins: Positive = 64  # mel bins
    n_fft: Positive = 1024  # samples of the Fourier transform
    window: Positive = 1024  # samples of the Hann window, in the middle of it
    hop: Positive = 320  # samples between frames
    low_freq: Hz = 50.0  # lowest mel edge, Hz
    high_freq: Annotated[float, Field(gt=0)] = 14000.0  # highest mel edge, Hz
    num_frames: Positive = 1001  # frames of one window
    # windows that a longer sound is seen through, one after the other: their tokens are averaged as
    # far as the sound goes (SALSA: 3 of 10 s); more sound than that is cropped
    windows: Positive = 1
    # a sound shorter than the windows: zeros after it; repeated and cut; or repeated while it fits
    # whole, then zeros
    fill: Literal["pad", "repeat", "repeatpad"] = "pad"

    @model_validator(mode="after")
    def _fits(self) -> MelSettings:
        if self.window > self.n_fft:
            raise ValueError(f"window {self.window} is longer than n_fft {self.n_fft}")
        if self.windows > 1 and self.fill != "pad":
            raise ValueError(
                f"fill {self.fill} goes with one window, not {self.windows}; take fill pad"
            )
        return self


class HtkLogSettings(MelSettings):
    """Natural log of HTK mel energies: PaSST and MobileNet (EfficientAT)."""

    kind: Literal["htk_log"] = "htk_log"
    num_mel_bins: Positive = 128
    window: Positive = 800
    low_freq: Hz = 0.0
    high_freq: Annotated[float, Field(gt=0)] = 15000.0
    num_frames: Positive = 1000  # frames of one window (1000 x 10 ms)
    # while training the mel edges are drawn anew for each sound: the lowest from 0 up to so many Hz
    # more, the highest up to half of so many Hz below or above (SALSA: 10 and 2000)
    jitter: tuple[Hz, Hz] = (0.0, 0.0)


class HtkDbSettings(MelSettings):
    """Decibels of HTK mel power: ATST, and HTSAT with feature fusion."""

    kind: Literal["htk_db"] = "htk_db"
    sample_rate: Positive = 16000
    hop: Positive = 160
    low_freq: Hz = 60.0
    high_freq: Annotated[float, Field(gt=0)] = 7800.0
    # decibels below the loudest of a window (for fusion: of the sound) where values are cut off
    top_db: Annotated[float, Field(gt=0)] | None = 80.0
    scaled: bool = True  # ATST's range: -50 to 80 dB, brought to about -1 to 1
    # fusion: of a longer sound the whole, shrunk, and a window of its front, middle and back
    views: Literal["one", "fusion"] = "one"
    # smooth before shrinking (torchvision from 0.17 on); LAION's released weights saw it without
    antialias: bool = False

    @model_validator(mode="after")
    def _fusion_is_of_one_window(self) -> HtkDbSettings:
        if self.views == "fusion" and self.windows > 1:
            raise ValueError(
                f"views fusion has windows of its own; take windows 1, not {self.windows}"
            )
        return self


class SlaneyDbSettings(MelSettings):
    """Decibels of Slaney's mel power: CNN14, and HTSAT without feature fusion."""

    kind: Literal["slaney_db"] = "slaney_db"
    # rate that the mel bank was made for, where another one: CLAP's CNN14 hears 44100 Hz through
    # the bank of its 32000 Hz checkpoint
    bank_rate: Positive | None = None


FrontEndSettings = Annotated[
    AudioSettings | HtkLogSettings | HtkDbSettings | SlaneyDbSettings, Field(discriminator="kind")
]

# How a sound is shown to an encoder whose weights do not depend on it: a model may be trained on
# with others than it had. For num_frames it is resized, which not every encoder can.
SHOWN = {"windows", "jitter", "fill", "channel", "num_frames"}
