"""FBANK: log-mel energies of a sound, by Kaldi's definition, in plain torch, at cache speed.

The definition is `torchaudio.compliance.kaldi.fbank` with a hanning window, no dither, HTK mel
scale and a floor of float32 epsilon. Two facts make it cheap:

- the hanning window is 0 at both ends, so pre-emphasis can run over the whole waveform and the
  frame's own mean becomes one constant: x[n]-m - a(x[n-1]-m) = (x[n]-a x[n-1]) - (1-a)m, exactly;
- a mel bin sees few FFT bins, so the mel matrix is cut into bands; each band multiplies the squares
  of the interleaved real and imaginary parts, which adds them up on the way.

On a CPU a clip is worked through in blocks of frames that stay in the core's cache; batching clips
there would only push them out. One thread does it: a clip takes 2 ms, and a second thread that
waits for a busy core made it 24 ms; so the result does not depend on the number of threads either.
Shapes: B clips, N samples, T frames, L window, F FFT, M mel bins.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from pivot.errors import DataError, SettingsError
from pivot.settings import AudioSettings, FrontEndSettings
from pivot.settings.front_ends import MelSettings

EPS = float(np.finfo(np.float32).eps)  # floor of a mel energy; log(EPS) = -15.942385
PREEMPHASIS = 0.97
BLOCK = 256  # frames of one block: measured best of 32..1000 at 16 and 44.1 kHz
BANDS = 8  # slices of the mel matrix: measured best of 1, 2, 4, 8
GPU_CLIPS = 64  # clips of one batch on a GPU; bounds the frames' memory


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch use one thread here; the count belongs to the calling thread, a change costs 1 us.

    Use it with `with`, or as the decorator `@one_thread()`.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def require_fbank(settings: FrontEndSettings, what: str) -> AudioSettings:
    """Settings of FBANK; SettingsError where `what`, which is of FBANK, meets another kind."""
    if isinstance(settings, AudioSettings):
        return settings
    raise SettingsError(
        f"{what} is for FBANK, and audio.kind is {settings.kind}; leave it out, or take a model "
        "that hears FBANK (audio.kind fbank)"
    )


def frame_geometry(sample_rate: int, settings: AudioSettings) -> tuple[int, int, int]:
    """Window, shift and FFT length in samples (25 and 10 ms at 16 kHz: 400, 160, 512)."""
    length = int(sample_rate * settings.frame_length_ms / 1000)
    shift = int(sample_rate * settings.frame_shift_ms / 1000)
    if length < 4 or shift < 1:
        raise SettingsError(
            f"audio.frame_length_ms {settings.frame_length_ms} and audio.frame_shift_ms "
            f"{settings.frame_shift_ms} are {length} and {shift} samples at {sample_rate} Hz; "
            "at least 4 and 1 are needed"
        )
    return length, shift, 1 << (length - 1).bit_length()


def num_frames(samples: int, sample_rate: int, settings: AudioSettings) -> int:
    """Frames of a sound: only whole windows count, so 0 when it is shorter than one."""
    length, shift, _ = frame_geometry(sample_rate, settings)
    return 0 if samples < length else 1 + (samples - length) // shift


def mel_range(sample_rate: int, low: float, high: float) -> tuple[float, float]:
    """Lowest and highest mel edge in Hz; SettingsError where they do not lie in 0 to Nyquist."""
    nyquist = sample_rate / 2
    high = nyquist + high if high <= 0 else high
    if not 0 <= low < high <= nyquist:
        raise SettingsError(
            f"audio.low_freq {low:g} to audio.high_freq {high:g} Hz does not lie in 0 to "
            f"{nyquist:g} Hz (half of {sample_rate} Hz); change these or audio.sample_rate"
        )
    return low, high


def mel_edges(sample_rate: int, settings: AudioSettings | MelSettings) -> np.ndarray:
    """(M + 2,) edges on the mel scale 1127 ln(1 + f/700); bin m spans edges m to m + 2."""
    low, high = mel_range(sample_rate, settings.low_freq, settings.high_freq)
    low_mel, high_mel = 1127 * np.log1p(np.array([low, high]) / 700)
    return np.asarray(np.linspace(low_mel, high_mel, settings.num_mel_bins + 2))


def triangles(edges: np.ndarray, places: np.ndarray) -> np.ndarray:
    """(F, M) weights at `places` (F,) of triangles over edges (M + 2,): m spans m to m + 2."""
    left, centre, right = edges[:-2], edges[1:-1], edges[2:]
    x = places[:, None]
    up, down = (x - left) / (centre - left), (right - x) / (right - centre)
    return np.asarray(np.maximum(0, np.minimum(up, down)))


def mel_weights(sample_rate: int, settings: AudioSettings) -> np.ndarray:
    """(F/2 + 1, M) float64 triangles on the mel scale.

    A column may be all zero: at 16 kHz with 128 bins column 3 falls between two FFT bins, so its
    energy is always the floor.
    """
    _, _, fft = frame_geometry(sample_rate, settings)
    mel = 1127 * np.log1p(np.arange(fft // 2 + 1) * sample_rate / fft / 700)
    return triangles(mel_edges(sample_rate, settings), mel)


def _bands(weights: np.ndarray) -> list[tuple[slice, slice, np.ndarray]]:
    """Cut (F/2 + 1, M) weights into bands: (mel bins, interleaved FFT values, their weights)."""
    mels = weights.shape[1]
    marks = [mels * i // BANDS for i in range(BANDS + 1)]
    bands = []
    for first, last in pairwise(marks):
        used = np.flatnonzero(weights[:, first:last].any(axis=1))
        start, stop = (int(used[0]), int(used[-1]) + 1) if used.size else (0, 0)
        twice = np.repeat(weights[start:stop, first:last], 2, axis=0)  # real and imaginary part
        if last > first:
            bands.append((slice(first, last), slice(2 * start, 2 * stop), twice))
    return bands


class _Tables:
    """Window and mel bands of one device and type; made in float64, rounded once."""

    def __init__(self, rate: int, settings: AudioSettings, like: Tensor) -> None:
        length, _, _ = frame_geometry(rate, settings)
        n = np.arange(1, length - 1)  # the two ends are 0 and left out
        self.window = like.new_tensor(0.5 - 0.5 * np.cos(2 * np.pi * n / (length - 1)))
        self.bands = [(m, f, like.new_tensor(w)) for m, f, w in _bands(mel_weights(rate, settings))]


class Fbank(torch.nn.Module):
    """FBANK at one sample rate, computed on the device where the waveform is.

    It has no parameters or buffers, so casting a model that holds it to bfloat16 changes nothing.
    It is not differentiable.
    """

    def __init__(self, settings: AudioSettings, sample_rate: int) -> None:
        super().__init__()
        self.settings, self.sample_rate = settings, sample_rate
        self.length, self.shift, self.fft = frame_geometry(sample_rate, settings)
        mel_edges(sample_rate, settings)  # raises now rather than at the first sound
        self._tables: dict[tuple[torch.device, torch.dtype], _Tables] = {}

    @one_thread()
    @torch.no_grad()
    def forward(self, wave: Tensor) -> Tensor:
        """int16 or float32 in -1..1, (N,) or (B, N) -> float32 (T, M) or (B, T, M).

        float64 is computed and returned in float64. No mean is removed beyond each frame's own.
        """
        with torch.autocast(wave.device.type, enabled=False):
            x = self.checked(wave)
            out = x.new_empty(x.shape[0], self.frames(x.shape[-1]), self.settings.num_mel_bins)
            if x.device.type == "cpu":
                for clip, rows in zip(x, out, strict=True):
                    self._by_blocks(clip, rows)
            else:
                for clips, rows in zip(x.split(GPU_CLIPS), out.split(GPU_CLIPS), strict=True):
                    self._at_once(clips, rows)
            out.clamp_(min=EPS).log_()
        return out[0] if wave.dim() == 1 else out

    def frames(self, samples: int) -> int:
        """Frames of a sound of so many samples."""
        return num_frames(samples, self.sample_rate, self.settings)

    def checked(self, wave: Tensor) -> Tensor:
        """(B, N) floating samples in -1..1 of an acceptable waveform, or DataError."""
        if wave.dim() not in (1, 2):
            raise DataError(f"a waveform of shape {tuple(wave.shape)}; give (N,) or (B, N)")
        if wave.shape[-1] < self.length:
            raise DataError(
                f"a sound of {wave.shape[-1]} samples at {self.sample_rate} Hz is shorter than one "
                f"window ({self.length}); leave it out"
            )
        if wave.dtype == torch.int16:
            wave = wave.float().mul_(1 / 32768)
        elif wave.dtype not in (torch.float32, torch.float64):
            raise DataError(f"a waveform of type {wave.dtype}; give int16, or float32 in -1..1")
        return wave[None] if wave.dim() == 1 else wave

    def _tables_of(self, x: Tensor) -> _Tables:
        key = (x.device, x.dtype)
        if key not in self._tables:
            self._tables[key] = _Tables(self.sample_rate, self.settings, x)
        return self._tables[key]

    def _views(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Overlapping views (..., T, L) of the sound and (..., T, L - 2) of its pre-emphasis."""
        sharp = torch.sub(x[..., 1:-1], x[..., :-2], alpha=PREEMPHASIS)
        frames = x.unfold(-1, self.length, self.shift)
        return frames, sharp.unfold(-1, self.length - 2, self.shift)[..., : frames.shape[-2], :]

    def _by_blocks(self, x: Tensor, out: Tensor) -> None:
        """One clip x (N,), block after block through one buffer; energies into out (T, M)."""
        frames, sharp = self._views(x)
        buffer = x.new_zeros(min(BLOCK, len(frames)), self.fft)
        for start in range(0, len(frames), BLOCK):
            rows = out[start : start + BLOCK]
            block = slice(start, start + len(rows))
            self._energies(frames[block], sharp[block], buffer[: len(rows)], rows)

    def _at_once(self, x: Tensor, out: Tensor) -> None:
        """Clips x (B, N) in one go; energies into out (B, T, M)."""
        frames, sharp = self._views(x)
        buffer = x.new_zeros(*frames.shape[:-1], self.fft)
        self._energies(frames, sharp, buffer, out)

    def _energies(self, frames: Tensor, sharp: Tensor, buffer: Tensor, out: Tensor) -> None:
        """Mel energies of frames (..., L) into out (..., M); buffer (..., F) is 0 past L - 2."""
        tables = self._tables_of(frames)
        offset = frames.mean(-1, keepdim=True).mul_(1 - PREEMPHASIS)
        windowed = buffer[..., : self.length - 2]
        torch.sub(sharp, offset, out=windowed).mul_(tables.window)
        # The window sits one sample early in the buffer: a shift changes phases, not energies.
        squares = torch.view_as_real(torch.fft.rfft(buffer)).flatten(-2).square_()
        for mels, bins, weights in tables.bands:
            torch.matmul(squares[..., bins], weights, out=out[..., mels])


@lru_cache(maxsize=32)
def fbank_module(settings: AudioSettings, sample_rate: int) -> Fbank:
    """The Fbank of these settings and this rate, made once."""
    return Fbank(settings, sample_rate)


def fbank(wave: Tensor, sample_rate: int, settings: AudioSettings) -> Tensor:
    """FBANK (T, M) of a sound (N,) by the backend of the settings; see Fbank.forward."""
    module = fbank_module(settings, sample_rate)
    if settings.backend == "torch":
        return module(wave)
    from pivot.audio import backends  # the other backends are optional packages

    return backends.compute(wave, module)


def log_floor() -> float:
    """Value of a mel bin without energy: log of float32 epsilon."""
    return math.log(EPS)
