"""Log-mel of three definitions in plain torch: those of PaSST, of ATST and HTSAT, of CNN14.

    htk_log    pre-emphasis 0.97 (a sample fewer), symmetric Hann, Kaldi's triangles on the HTK
               scale, (ln(p + 1e-5) + 4.5) / 5: PaSST, EfficientAT
    htk_db     periodic Hann, triangles in Hz between HTK's edges, 10 log10(max(p, 1e-10)), cut off
               `top_db` below the sound's maximum; `scaled` to ATST's range: ATST-Frame; without
               the last two: HTSAT with feature fusion (torchaudio's MelSpectrogram)
    slaney_db  periodic Hann, Slaney's edges and areas, 10 log10(max(p, 1e-10)): PANNs' CNN14,
               HTSAT without fusion (librosa's defaults, torchlibrosa)

Frames are centred: the sound is reflected at its two ends, and frame t has its middle at t * hop.
A sound is worked through in blocks of frames by one thread, so an hour needs little memory, and a
sound has the same bytes whatever else is computed.
Shapes: N samples, T frames, F = n_fft / 2 + 1 FFT bins, M mel bins.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from pivot.audio.fbank import BLOCK, PREEMPHASIS, mel_edges, mel_range, one_thread, triangles
from pivot.errors import DataError, SettingsError
from pivot.settings.front_ends import (
    HtkDbSettings,
    HtkLogSettings,
    MelSettings,
    SlaneyDbSettings,
)

LOG_OFFSET = 1e-5  # added to an energy before its natural log (PaSST, EfficientAT)
LEAST_POWER = 1e-10  # power of -100 dB, the least that decibels are taken of
ATST_DB, ATST_MIDDLE, ATST_RANGE = (-50.0, 80.0), 79.6482, 130.3324  # ATST-Frame's scaling
Edges = tuple[float, float]  # lowest and highest mel edge, Hz


def num_frames(samples: int, settings: MelSettings) -> int:
    """Frames of a sound of so many samples; htk_log's pre-emphasis has dropped one."""
    return 1 + (samples - isinstance(settings, HtkLogSettings)) // settings.hop


def window_samples(settings: MelSettings) -> int:
    """Samples of one window of `num_frames` frames: 320000 (10 s at 32 kHz) of CNN14 and PaSST."""
    return (settings.num_frames - (not isinstance(settings, HtkLogSettings))) * settings.hop


def mel_bank(settings: MelSettings, low: float | None = None, high: float | None = None) -> Tensor:
    """(F, M) float64 weights of FFT bins in mel bins, by the definition of `settings.kind`.

    low and high: other mel edges than the settings', Hz. Raises SettingsError for edges that do not
    lie between 0 and Nyquist.
    """
    given = {"low_freq": low, "high_freq": high}
    asked = settings.model_copy(update={k: v for k, v in given.items() if v is not None})
    if isinstance(asked, SlaneyDbSettings):
        return torch.from_numpy(_slaney_bank(asked))
    hertz = _bin_hertz(asked.sample_rate, asked.n_fft)
    edges = mel_edges(asked.sample_rate, asked)
    if isinstance(asked, HtkLogSettings):
        return torch.from_numpy(triangles(edges, 1127 * np.log1p(hertz / 700)))
    return torch.from_numpy(triangles(700 * np.expm1(edges / 1127), hertz))


def _bin_hertz(rate: int, n_fft: int) -> np.ndarray:
    return np.asarray(np.arange(n_fft // 2 + 1) * rate / n_fft)


def _slaney_bank(settings: SlaneyDbSettings) -> np.ndarray:
    """Triangles in Hz of area 1 between edges on Slaney's scale (Auditory Toolbox, librosa)."""
    rate = settings.bank_rate or settings.sample_rate
    low, high = mel_range(rate, settings.low_freq, settings.high_freq)
    mels = np.linspace(_slaney_mel(low), _slaney_mel(high), settings.num_mel_bins + 2)
    linear, steps = mels * (200 / 3), np.maximum(mels - 15, 0) / 27
    edges = np.where(mels < 15, linear, 1000 * 6.4**steps)
    weights = triangles(edges, _bin_hertz(rate, settings.n_fft))
    return np.asarray(weights * 2 / (edges[2:] - edges[:-2]))


def _slaney_mel(hertz: float) -> float:
    """Linear up to 1000 Hz (mel 15), then logarithmic: 27 mels to 6400 Hz."""
    above = 15 + 27 * np.log(max(hertz, 1000) / 1000) / np.log(6.4)
    return hertz * 3 / 200 if hertz < 1000 else float(above)


@one_thread()
@torch.no_grad()
def log_mel(wave: Tensor, settings: MelSettings, edges: Edges | None = None) -> Tensor:
    """Log-mel (T, M) of a sound (N,), int16 or float32 in -1..1; float64 stays float64.

    edges: other mel edges than the settings', Hz. Raises DataError for a sound that is too short to
    be reflected at its ends (n_fft / 2 samples) or of another type.
    """
    with torch.autocast(wave.device.type, enabled=False):
        x = _checked(wave, settings)
        if isinstance(settings, HtkLogSettings):
            x = x[1:] - PREEMPHASIS * x[:-1]
        out = _mel_power(x, settings, _bank(settings, edges, x))
        if isinstance(settings, HtkLogSettings):
            return out.add_(LOG_OFFSET).log_().add_(4.5).div_(5)
        out.clamp_(min=LEAST_POWER).log10_().mul_(10)
        return _ranged(out, settings) if isinstance(settings, HtkDbSettings) else out


def _checked(wave: Tensor, settings: MelSettings) -> Tensor:
    """(N,) floating samples in -1..1 of an acceptable waveform, or DataError."""
    if wave.dim() != 1:
        raise DataError(f"a waveform of shape {tuple(wave.shape)}; give (N,)")
    if wave.dtype == torch.int16:
        wave = wave.float().mul_(1 / 32768)
    elif wave.dtype not in (torch.float32, torch.float64):
        raise DataError(f"a waveform of type {wave.dtype}; give int16, or float32 in -1..1")
    least = shortest(settings)
    if len(wave) < least:
        raise DataError(f"a sound of {len(wave)} samples; log-mel needs {least}, fill it up first")
    return wave


def shortest(settings: MelSettings) -> int:
    """Fewest samples that can be reflected by half a Fourier transform at both ends."""
    return settings.n_fft // 2 + 1 + isinstance(settings, HtkLogSettings)


def _mel_power(x: Tensor, settings: MelSettings, bank: Tensor) -> Tensor:
    """Mel power (T, M) of x (N,), block after block of frames."""
    half = settings.n_fft // 2
    padded = pad(x[None], (half, half), mode="reflect")[0]
    frames = padded.unfold(0, settings.n_fft, settings.hop)
    window = _window(settings.window, settings.n_fft, isinstance(settings, HtkLogSettings), x)
    out = x.new_empty(len(frames), bank.shape[1])
    for block, rows in zip(frames.split(BLOCK), out.split(BLOCK), strict=True):
        found = torch.fft.rfft(block * window)
        torch.matmul(found.real.square().addcmul_(found.imag, found.imag), bank, out=rows)
    return out


def _ranged(db: Tensor, settings: HtkDbSettings) -> Tensor:
    """Decibels of one sound, cut off below its own maximum, and in ATST's range."""
    if settings.top_db is not None:
        db.clamp_(min=db.max() - settings.top_db)
    if settings.scaled:
        db.clamp_(*ATST_DB).add_(ATST_MIDDLE).div_(ATST_RANGE).mul_(2).sub_(1)
    return db


def _window(length: int, n_fft: int, symmetric: bool, like: Tensor) -> Tensor:
    """Hann window in the middle of n_fft samples, in the type and on the device of `like`."""
    return _made_window(length, n_fft, symmetric, like.dtype, like.device)


@lru_cache(maxsize=16)
def _made_window(
    length: int, n_fft: int, symmetric: bool, dtype: torch.dtype, device: torch.device
) -> Tensor:
    # made in the type itself, as the publishers' code: another last bit of a window moves the noise
    # of float32, and with it bins 100 dB below the loudest, by 0.04 dB
    hann = torch.hann_window(length, periodic=not symmetric, dtype=dtype)
    before = (n_fft - length) // 2
    return pad(hann, (before, n_fft - length - before)).to(device)


def _bank(settings: MelSettings, edges: Edges | None, like: Tensor) -> Tensor:
    """The mel bank in the type and on the device of `like`; drawn edges are not kept."""
    if edges is not None:
        return mel_bank(settings, *edges).to(like)
    return _made_bank(settings, like.dtype, like.device)


@lru_cache(maxsize=16)
def _made_bank(settings: MelSettings, dtype: torch.dtype, device: torch.device) -> Tensor:
    return mel_bank(settings).to(device, dtype)


def check_window(settings: MelSettings) -> None:
    """SettingsError for settings that no sound can be heard with: edges, jitter, window."""
    mel_bank(settings)
    if isinstance(settings, HtkLogSettings):
        most = settings.low_freq + settings.jitter[0]
        half = settings.jitter[1] / 2
        for edges in ((most, settings.high_freq - half), (most, settings.high_freq + half)):
            mel_range(settings.sample_rate, *edges)
    if window_samples(settings) < shortest(settings):
        raise SettingsError(
            f"audio.num_frames {settings.num_frames} are {window_samples(settings)} samples, fewer "
            f"than the {shortest(settings)} that audio.n_fft {settings.n_fft} needs; raise it"
        )
