"""Masks over time and frequency of a normalised FBANK while training: drawn first, applied second.

Each length is uniform from 0 up to its maximum, as in the reference, whose "one fifth" and "one
fourth" are maxima (VIP-ANT's code, torchaudio's masks). Masked values are 0, the mean. `draw` takes
its numbers from anywhere, `draw_torch` from torch exactly as the reference.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
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


def draw_torch(
    frames: int, mels: int, settings: MaskSettings, generator: torch.Generator | None = None
) -> Masks:
    """Draw the masks of one clip as torchaudio's FrequencyMasking, then TimeMasking, draw them.

    Four float32 numbers of torch.rand in `draw`'s order, and float32 arithmetic; generator None is
    torch's global one, so that after torch.manual_seed(s) the masks are the reference's. A maximum
    of 0 draws nothing.
    """
    freq = _torch_range(mels, settings.freq, generator)
    return Masks(*freq, *_torch_range(frames, settings.time, generator))


def _torch_range(size: int, most: int, generator: torch.Generator | None) -> tuple[int, int]:
    if not most:
        return 0, 0
    length = torch.rand(1, generator=generator) * min(most, size)
    start = torch.rand(1, generator=generator) * (size - length)
    return int(start), int(start) + int(length)


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
