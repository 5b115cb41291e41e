"""The window of a long sound that is used: at random while training, the middle otherwise.

`plain` takes any start with equal chance. `vip_ant` is the reference's rule, which looks for a
louder place when the window is quiet, start for start.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

Rng = np.random.Generator | np.random.RandomState


def crop(
    wave: np.ndarray, length: int, *, rule: Literal["plain", "vip_ant"], rng: Rng | None = None
) -> np.ndarray:
    """View of `length` samples of wave (channels, samples), or all of a sound that is no longer.

    rng None takes the middle: the same window every time.
    """
    if wave.shape[-1] <= length:
        return wave
    start = first_sample(wave, length, rule=rule, rng=rng)
    return wave[..., start : start + length]


def first_sample(
    wave: np.ndarray, length: int, *, rule: Literal["plain", "vip_ant"], rng: Rng | None
) -> int:
    """Start of the window in a sound longer than `length`."""
    spare = wave.shape[-1] - length
    if rng is None:
        start = round(0.5 * spare)  # halves to even, as the reference
    else:
        # The reference never takes the last start; plain takes each of the spare + 1.
        start = _draw(rng, spare if rule == "vip_ant" else spare + 1)
    return _louder(wave, length, start) if rule == "vip_ant" else start


def _draw(rng: Rng, below: int) -> int:
    """A whole number in 0..below - 1; RandomState draws as the reference's global np.random."""
    if isinstance(rng, np.random.RandomState):
        return int(rng.randint(0, below))
    return int(rng.integers(0, below))


def _louder(wave: np.ndarray, length: int, start: int) -> int:
    """The reference's silence rule: the window, or else the beginning, or else the end.

    A window is quiet when its deviation is under half of the whole sound's, all channels together.
    """
    half = 0.5 * _deviation(wave)
    window = _deviation(wave[..., start : start + length])
    if window >= half:
        return start
    if window > _deviation(wave[..., :length]):
        return int(wave.shape[-1] - length)
    return 0


def _deviation(wave: np.ndarray) -> float:
    return float(wave.std(ddof=1, dtype=np.float64))
