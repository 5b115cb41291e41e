"""Masks over time and frequency of a normalised FBANK while training: drawn first, applied second.

Each length is uniform from 0 up to its maximum, as in the reference, whose "one fifth" and "one
fourth" are maxima (VIP-ANT's code, torchaudio's masks). Masked values are 0, the mean.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from torch import Tensor

from pivot.audio.fbank import one_thread
from pivot.settings import MaskSettings


class Masks(NamedTuple):
    """Half-open ranges that are masked: mel bins and frames."""

    freq_start: int
    freq_stop: int
    time_start: int
    time_stop: int


def draw(frames: int, mels: int, settings: MaskSettings, uniform: Callable[[], float]) -> Masks:
    """Draw the masks of one clip; `uniform` gives numbers in 0..1 (an rng's `random`).

    Four numbers in the reference's order: length and start along frequency, then along time.
    """
    freq = _range(mels, settings.freq, uniform)
    time = _range(frames, settings.time, uniform)
    return Masks(*freq, *time)


def _range(size: int, most: int, uniform: Callable[[], float]) -> tuple[int, int]:
    """Start and stop: floor(u (size - length)) with the length before it is rounded down."""
    length = uniform() * min(most, size)
    start = int(uniform() * (size - length))
    return start, start + int(length)


@one_thread()
def apply(fbank: Tensor, masks: Masks) -> Tensor:
    """A copy of fbank (T, M) with the masked values at 0."""
    out = fbank.clone()
    out[:, masks.freq_start : masks.freq_stop] = 0
    out[masks.time_start : masks.time_stop] = 0
    return out


def mask(fbank: Tensor, settings: MaskSettings, rng: np.random.Generator) -> Tensor:
    """A copy of the normalised FBANK (T, M) of one clip, masked by its own generator.

    The generator is keyed by the caller to (seed, purpose, step, clip); nothing global is drawn.
    """
    frames, mels = fbank.shape
    return apply(fbank, draw(frames, mels, settings, rng.random))
