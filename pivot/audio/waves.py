"""Sounds as they come, checked and brought to one rate: shape, type, range, sample rate."""

from __future__ import annotations

import operator
from typing import Literal

import numpy as np
from torch import Tensor

from pivot.errors import DataError

# A float sound this loud is surely on another scale than -1..1 (int16 kept in floats, say).
LOUDEST = 256.0


def bring(
    wave: np.ndarray | Tensor, rate: int, target: int | Literal["native"]
) -> tuple[np.ndarray, int]:
    """Check a sound and bring it to a rate: (channels, samples) int16 or float32, and its rate.

    `native` leaves it at its own. Raises DataError for a sound that is empty, not finite, of
    another shape or type, and for a bad rate.
    """
    rate = _checked_rate(rate)
    x = _checked_wave(wave)
    if target not in ("native", rate):
        # loads PyAV and soxr, which most sounds never need
        from video_prep.decoding.sound import resample

        x, rate = resample(to_float(x), rate, int(target)), int(target)
    return x, rate


def to_float(x: np.ndarray) -> np.ndarray:
    """A float32 copy in -1..1 (a copy also because torch warns about arrays it may not write)."""
    scale = np.float32(1 / 32768 if x.dtype == np.int16 else 1)
    return np.multiply(x, scale, dtype=np.float32, order="C")


def _checked_rate(rate: int) -> int:
    try:
        whole = 0 if isinstance(rate, bool) else operator.index(rate)
    except TypeError:
        whole = 0
    if whole <= 0:
        raise DataError(f"a sound with sample rate {rate}; give a whole number of Hz above 0")
    return whole


def _checked_wave(wave: np.ndarray | Tensor) -> np.ndarray:
    """(channels, samples) int16 or float32, finite; float64 is rounded to float32."""
    x = wave.detach().cpu().numpy() if isinstance(wave, Tensor) else np.asarray(wave)
    x = x[None] if x.ndim == 1 else x
    if x.ndim != 2 or x.dtype not in (np.int16, np.float32, np.float64):
        raise DataError(
            f"a sound of shape {x.shape} and type {x.dtype}; "
            "give (channels, samples) as int16, or as float32 in -1..1"
        )
    if x.size == 0:
        raise DataError(f"a sound without samples, shape {x.shape}; leave it out")
    if x.shape[0] > x.shape[1]:
        raise DataError(f"a sound of shape {x.shape}; give (channels, samples), not the transpose")
    if x.dtype != np.int16:
        _check_range(x)
        x = x.astype(np.float32, copy=False)
    return x


def _check_range(x: np.ndarray) -> None:
    """One pass in the good case: the extremes are finite and small only if every sample is."""
    low, high = float(x.min()), float(x.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        bad = np.argwhere(~np.isfinite(x))
        raise DataError(
            f"a sound with {len(bad)} samples that are NaN or infinite, the first at sample "
            f"{bad[0, 1]} of channel {bad[0, 0]}; mend or leave out the file"
        )
    if max(-low, high) > LOUDEST:
        raise DataError(
            f"a float sound that reaches {max(-low, high):.6g}; floats are in -1..1 "
            "(divide by 32768, or give int16)"
        )
