"""Samples in memory: 16 bits or floats, the wanted channel, soxr HQ to the wanted rate."""

from __future__ import annotations

from typing import Literal

import numpy as np
import soxr

from video_prep.errors import ClipError, UserError

Channel = Literal["first", "mean", "all"]
Rate = int | Literal["native"]

_INT16 = 32768.0
_SILENT = 2**-12  # peak below -72 dB of full scale
_BLOCK = 1 << 16  # samples that are converted at a time


def fit(wave: np.ndarray, rate: int, sample_rate: Rate, channel: Channel) -> tuple[np.ndarray, int]:
    """Bring (channels, samples) to the wanted channel first, then to the wanted rate."""
    wave = pick(wave, channel)
    if sample_rate == "native":
        return wave, rate
    return resample(wave, rate, sample_rate), sample_rate


def pick(wave: np.ndarray, channel: Channel) -> np.ndarray:
    """The wanted channels of (channels, samples); the mean of several is float32."""
    if channel == "first":
        return wave[:1]
    if channel == "mean":
        if len(wave) == 1:
            return wave
        return to_float(wave).mean(axis=0, keepdims=True, dtype=np.float32)
    if channel != "all":
        raise UserError(f"channel {channel!r} is unknown; choose first, mean or all")
    return wave


def resample(wave: np.ndarray, from_rate: int, to_rate: int) -> np.ndarray:
    """Resample (channels, samples) with soxr HQ to float32; equal rates return `wave` as it is."""
    if from_rate <= 0 or to_rate <= 0:
        raise UserError(f"sample rate {min(from_rate, to_rate)} must be above 0")
    if from_rate == to_rate:
        return wave
    out = soxr.resample(np.ascontiguousarray(to_float(wave).T), from_rate, to_rate, quality="HQ")
    return np.ascontiguousarray(out.T)


def to_float(wave: np.ndarray) -> np.ndarray:
    """Samples as float32 with full scale 1."""
    if wave.dtype == np.int16:
        return wave.astype(np.float32) / np.float32(_INT16)
    return wave.astype(np.float32, copy=False)


def to_int16(wave: np.ndarray) -> np.ndarray:
    """Samples as int16, rounded and clipped; NaN or infinity raises ClipError."""
    if wave.dtype == np.int16:
        return wave
    if not np.isfinite(wave).all():
        raise ClipError("not_finite", "the sound holds NaN or infinite samples; mend the file")
    return np.clip(np.rint(wave * _INT16), -32768, 32767).astype(np.int16)


def is_silent(wave: np.ndarray) -> bool:
    """True where no sample of the int16 sound is above -72 dB of full scale."""
    return not wave.size or bool(max(int(wave.max()), -int(wave.min())) < _SILENT * _INT16)


class WaveFitter:
    """Brings a sound to the wanted channels and rate block by block, equal to `fit` all at once.

    So the sound of a film needs no more memory than what is kept: int16 where `short`.
    """

    def __init__(self, rate: int, channel: Channel, sample_rate: Rate, short: bool) -> None:
        self.rate = rate if sample_rate == "native" else sample_rate
        if min(rate, self.rate) <= 0:
            raise UserError(f"sample rate {min(rate, self.rate)} must be above 0")
        self._source_rate, self._channel, self._short = rate, channel, short
        self._stream: soxr.ResampleStream | None = None
        self._waiting: list[np.ndarray] = []
        self._waits = 0  # samples in `_waiting`
        self._done: list[np.ndarray] = []

    def add(self, wave: np.ndarray) -> None:
        """Take the next samples, (channels, samples)."""
        self._waiting.append(wave)
        self._waits += wave.shape[1]
        if self._waits >= _BLOCK:
            self._convert(last=False)

    def finish(self) -> np.ndarray:
        """The samples of all that was added, (channels, samples)."""
        self._convert(last=True)
        return np.concatenate(self._done, axis=1) if self._done else np.zeros((1, 0), np.int16)

    def _convert(self, last: bool) -> None:
        if self._waiting:
            wave = pick(np.concatenate(self._waiting, axis=1), self._channel)
        elif self._stream is not None:
            wave = np.zeros((len(self._done[0]), 0), np.float32)  # what the resampler still holds
        else:
            return
        self._waiting, self._waits = [], 0
        if self.rate != self._source_rate:
            wave = self._resample(to_float(wave), last)
        self._done.append(to_int16(wave) if self._short else wave)

    def _resample(self, wave: np.ndarray, last: bool) -> np.ndarray:
        if self._stream is None:
            self._stream = soxr.ResampleStream(
                self._source_rate, self.rate, len(wave), dtype="float32", quality="HQ"
            )
        return np.ascontiguousarray(
            self._stream.resample_chunk(np.ascontiguousarray(wave.T), last=last).T
        )
