"""Mixup of waveforms, drawn first and applied second; and the first-frames input.

AST and VIP-ANT's code mix so, with the labels. The latter computes mixed labels, but does not hand
them on (its function returns the FBANK alone): here they are mixed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from pivot.audio.frontend import FrontEnd, Rng, real_frames
from pivot.settings import AudioSettings
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
    """Which clips are mixed: a share of them, each with any of `clips`, by Beta(beta, beta)."""

    share: float
    beta: float
    clips: int
    seed: int

    def __call__(self, epoch: int, key: int) -> Mix | None:
        """The mixture of one clip in one epoch, a function of (seed, epoch, key); None: none."""
        if not self.share:
            return None
        rng = np.random.default_rng([self.seed, MIXUP, epoch, key])
        if rng.random() >= self.share:
            return None
        return Mix(int(rng.integers(self.clips)), float(rng.beta(self.beta, self.beta)))


def one_channel(
    wave: NDArray[np.int16], rate: int, settings: AudioSettings, target: int | None = None
) -> tuple[Wave, int]:
    """Int16 sound (channels, samples) -> (1, samples) in -1..1 and its rate; channel, then mean.

    It is brought to the rate `target`, by default that of the settings (or its own, if native), and
    its own mean is off.
    """
    x = wave.astype(np.float32) / np.float32(32768)
    wanted = target or (rate if settings.sample_rate == "native" else int(settings.sample_rate))
    if wanted != rate:
        x = resample(x, rate, wanted)
    one = x[:1] if settings.channel == "first" else x.mean(axis=0, keepdims=True)
    return one - one.mean(), wanted


def mixed(first: Wave, second: Wave, share: float) -> Wave:
    """share * first + (1 - share) * second, mean off: waves (1, samples), each with its mean off.

    The second is cut to the length of the first, or filled up with zeros at its end.
    """
    partner = np.zeros_like(first)
    length = min(first.shape[1], second.shape[1])
    partner[:, :length] = second[:, :length]
    both = np.float32(share) * first + np.float32(1 - share) * partner
    return both - both.mean()


class FirstFrames(FrontEnd):
    """The front end of the reference's AudioSet classifiers: channel first, then its mean.

    No window is cut: the encoder sees the first `num_frames` of the whole sound's FBANK.
    """

    def __call__(self, wave: np.ndarray | Tensor, rate: int, rng: Rng | None = None) -> Tensor:
        """Sound (channels, samples) -> float32 (num_frames, mel bins); `rng` draws nothing."""
        x = wave.detach().cpu().numpy() if isinstance(wave, Tensor) else np.asarray(wave)
        x = x[None] if x.ndim == 1 else x
        used = x[:1] if self.settings.channel == "first" else x
        return self.filled(real_frames(used, rate, self.settings))

    def needs_crop(self, samples: int, rate: int) -> bool:
        """Never, so a sound of any length is kept in memory."""
        return False
