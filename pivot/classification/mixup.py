"""Mixup of waveforms or of encoder inputs, drawn first, applied second; the first-frames input.

AST and VIP-ANT's code mix waveforms, with the labels. The latter computes mixed labels, but does
not hand them on (its function returns the FBANK alone): here they are mixed. LAION-CLAP's code
mixes log-mels, with the labels, each with the clip at the mirrored place of its batch; it does so
behind HTSAT's first batch norm, which is linear for each mel bin: the same but for SpecAugment.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pivot.audio.crop import Rng
from pivot.audio.frontend import FrontEnd, real_frames
from pivot.audio.views import pack, unpack
from pivot.errors import SettingsError
from pivot.settings import AudioSettings, FrontEndSettings
from video_prep.decoding.sound import resample

MIXUP = 5102  # names the generator of mixtures beside others of the same seed
Wave = NDArray[np.float32]


@dataclass(frozen=True)
class Mix:
    """What a clip is mixed with: its partner's position among the clips, and its own share."""

    partner: int
    share: float


@dataclass(frozen=True)
class MixRule:
    """Which clips are mixed: a share of them, each with any of `clips`, by Beta(beta, beta).

    `of` spectrogram: with the clip at the mirrored place of the batch instead.
    """

    share: float
    beta: float
    clips: int
    seed: int
    of: Literal["waveform", "spectrogram"] = "waveform"

    def __call__(self, epoch: int, key: int) -> Mix | None:
        """The mixture of one clip in one epoch, a function of (seed, epoch, key); None: none."""
        if not self.share:
            return None
        rng = np.random.default_rng([self.seed, MIXUP, epoch, key])
        if rng.random() >= self.share:
            return None
        return Mix(int(rng.integers(self.clips)), float(rng.beta(self.beta, self.beta)))

    def mirrored(self, epoch: int, keys: NDArray[np.int64]) -> Tensor:
        """Share (B,) of each clip of a batch beside the one at the mirrored place; 1: all its own.

        A share, too, is a function of (seed, epoch, key).
        """
        mixes = (self(epoch, key) for key in keys.tolist())
        return torch.tensor([1.0 if mix is None else mix.share for mix in mixes])


def mixed_inputs(own: Tensor, other: Tensor, shares: Tensor) -> Tensor:
    """Encoder inputs share * own + (1 - share) * other: (B, T, M) or (B, V, T + 1, M); shares (B,).

    A view of a mixture has as much sound as the one that has more.
    """
    weight = shares.reshape(-1, *[1] * (own.ndim - 1))
    if own.ndim == 3:
        return weight * own + (1 - weight) * other
    (first, heard), (second, also) = unpack(own), unpack(other)
    both = torch.where(shares[:, None] < 1, torch.maximum(heard, also), heard)
    return pack(weight * first + (1 - weight) * second, both)


def one_channel(
    wave: NDArray[np.int16], rate: int, settings: FrontEndSettings, target: int | None = None
) -> tuple[Wave, int]:
    """Int16 sound (channels, samples) -> (1, samples) in -1..1 and its rate; channel, then mean.

    It is brought to the rate `target`, by default that of the settings (or its own, if native). For
    FBANK its own mean is off.
    """
    x = wave.astype(np.float32) / np.float32(32768)
    wanted = target or (rate if settings.sample_rate == "native" else int(settings.sample_rate))
    if wanted != rate:
        x = resample(x, rate, wanted)
    one = x[:1] if settings.channel == "first" else x.mean(axis=0, keepdims=True)
    return (one - one.mean() if settings.kind == "fbank" else one), wanted


def mixed(first: Wave, second: Wave, share: float, keep_mean: bool = False) -> Wave:
    """share * first + (1 - share) * second, waves (1, samples); its mean off unless `keep_mean`.

    The second is cut to the length of the first, or filled up with zeros at its end.
    """
    partner = np.zeros_like(first)
    length = min(first.shape[1], second.shape[1])
    partner[:, :length] = second[:, :length]
    both = np.float32(share) * first + np.float32(1 - share) * partner
    return both if keep_mean else both - both.mean()


class FirstFrames(FrontEnd):
    """The front end of the reference's AudioSet classifiers: channel first, then its mean.

    No window is cut: the encoder sees the first `num_frames` of the whole sound's FBANK.
    """

    @classmethod
    def of(cls, front_end: FrontEnd) -> FirstFrames:
        """That of another front end; SettingsError where it is none of FBANK."""
        settings = front_end.settings
        if not isinstance(settings, AudioSettings):
            raise SettingsError(
                f"--compat vip_ant hears FBANK, and the model's audio.kind is {settings.kind}; "
                "leave out --compat"
            )
        return cls(settings, front_end.norm)

    def __call__(self, wave: np.ndarray | Tensor, rate: int, rng: Rng | None = None) -> Tensor:
        """Sound (channels, samples) -> float32 (num_frames, mel bins); `rng` draws nothing."""
        x = wave.detach().cpu().numpy() if isinstance(wave, Tensor) else np.asarray(wave)
        x = x[None] if x.ndim == 1 else x
        used = x[:1] if self.settings.channel == "first" else x
        return self.filled(real_frames(used, rate, self.settings))

    def needs_crop(self, samples: int, rate: int) -> bool:
        """Never, so a sound of any length is kept in memory."""
        return False
