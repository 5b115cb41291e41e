"""What a sound that is too short is filled up with: zeros, or itself again."""

from __future__ import annotations

from typing import Literal

import numpy as np

from pivot.errors import DataError

Fill = Literal["pad", "repeat", "repeatpad"]


def fill(wave: np.ndarray, samples: int, rule: Fill) -> np.ndarray:
    """Wave (C, n) -> (C, samples) of its type; one of no fewer samples is returned as it is.

    pad: zeros after it. repeat: again and again, cut. repeatpad: as often as it fits whole, then
    zeros (3 s in 10 s: 9 s of sound, 1 s of zeros). So does LAION-CLAP's `data_filling`. Raises
    DataError for a wave of no samples.
    """
    n = wave.shape[-1]
    if n == 0:
        raise DataError(f"a sound without samples, shape {wave.shape}; leave it out")
    if n >= samples:
        return wave
    out = np.zeros((*wave.shape[:-1], samples), wave.dtype)
    times = {"pad": 1, "repeat": samples // n + 1, "repeatpad": samples // n}[rule]
    used = np.tile(wave, times)[..., :samples]
    out[..., : used.shape[-1]] = used
    return out
