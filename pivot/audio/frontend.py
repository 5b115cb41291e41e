"""Sound to encoder input: rate, window, FBANK, padding and normalising, in one call.

The order is that of VIP-ANT's code: bring to the rate, crop the waveform, subtract
its mean over all channels and samples, take one channel, FBANK, cut to num_frames, pad, normalise.
Where the reference surprises, its way is a named setting: `pad: raw_zero` appends 0.0 before
normalising, which is louder than silence; `mean` appends 0 after it.
"""

from __future__ import annotations

import operator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pivot.audio.crop import Rng, crop
from pivot.audio.fbank import fbank, frame_geometry, one_thread
from pivot.audio.norms import NAMED, Norm, fingerprint, front_end, parse_norm, read_norm
from pivot.errors import DataError, SettingsError
from pivot.settings import AudioSettings
from video_prep.shards import ShardFolder

__all__ = ["FrontEnd", "Norm", "fingerprint", "front_end", "real_frames", "resolve_norm"]

# A float sound this loud is surely on another scale than -1..1 (int16 kept in floats, say).
LOUDEST = 256.0


def resolve_norm(settings: AudioSettings, shards: ShardFolder | str | Path | None = None) -> Norm:
    """The norm that `audio.norms` names: vip_ant, ast, shards (SHARDS/fbank.json), or a file.

    A file is refused when it was measured with another front end, and that of the shards also when
    it was measured on other clips than the folder holds now.
    """
    if settings.norms in NAMED:
        return NAMED[settings.norms]
    if settings.norms != "shards":
        return read_norm(settings.norms, settings)
    if shards is None:
        raise SettingsError(
            "audio.norms shards needs a folder of shards; set --audio.norms to vip_ant, ast, "
            "or a file of pivot measure-fbank"
        )
    folder = shards if isinstance(shards, ShardFolder) else ShardFolder(shards)
    path = f"{folder.path}/fbank.json"
    norm, found = parse_norm(folder.find("fbank.json"), path, settings)
    measured = (found.get("shards") or {}).get("fingerprint")
    if measured != folder.fingerprint:
        raise DataError(
            f"{path} was measured on other clips than {folder.path} holds now; "
            f"run pivot measure-fbank {folder.path} again"
        )
    return norm


@one_thread()
def real_frames(wave: np.ndarray | Tensor, rate: int, settings: AudioSettings) -> Tensor:
    """FBANK (T, M) of a whole sound: no crop, no padding, not normalised."""
    return _frames(*_bring(wave, rate, settings), settings)


class FrontEnd:
    """Sound to encoder input under one set of settings and one norm."""

    def __init__(self, settings: AudioSettings, norm: Norm) -> None:
        self.settings = settings
        self.norm = norm

    @one_thread()
    def __call__(self, wave: np.ndarray | Tensor, rate: int, rng: Rng | None = None) -> Tensor:
        """Sound (channels, samples), int16 or float in -1..1 -> float32 (num_frames, mel bins).

        rng draws the window of a long sound; None takes the same one every time. Raises DataError
        for a sound that is empty, not finite, or shorter than one window, and for a bad rate.
        """
        x, rate = _bring(wave, rate, self.settings)
        x = crop(x, self.window_samples(rate), rule=self.settings.crop, rng=rng)
        return self.filled(_frames(x, rate, self.settings))

    def crop_frames(self, rows: np.ndarray, rng: Rng | None = None) -> np.ndarray:
        """View of the frames that are used of a whole sound's FBANK (T, M), of any type.

        This is for FBANK that was kept (`real_frames`). A longer sound is cut between two frames,
        whereas a call cuts it at any sample; a shorter one comes to the same. Raises
        SettingsError for the vip_ant crop of a longer sound: its rule looks at samples.
        """
        if len(rows) <= self.uncropped_frames():
            return rows[: self.settings.num_frames]
        if self.settings.crop == "vip_ant":
            raise SettingsError(f"audio.crop vip_ant needs samples to crop {len(rows)} frames")
        return crop(rows.T, self.settings.num_frames, rule="plain", rng=rng).T

    def uncropped_frames(self) -> int:
        """Most frames of a whole sound that a call never crops; vip_ant drops its last ones."""
        s = self.settings
        spare = (50 - s.frame_length_ms) // s.frame_shift_ms if s.crop == "vip_ant" else 0
        return s.num_frames + max(0, int(spare))

    def window_samples(self, rate: int) -> int:
        """Samples that are cut from a longer sound, at the rate of the FBANK.

        plain: exactly num_frames frames. vip_ant: 50 ms more than their steps (10.05 s for 1000).
        """
        s = self.settings
        if s.crop == "vip_ant":
            return int((s.num_frames * s.frame_shift_ms / 1000 + 0.05) * rate)
        length, shift, _ = frame_geometry(rate, s)
        return length + (s.num_frames - 1) * shift

    def needs_crop(self, samples: int, rate: int) -> bool:
        """Whether a sound of so many samples at this rate depends on where it is cut."""
        target = rate if self.settings.sample_rate == "native" else self.settings.sample_rate
        resampled = -(-samples * target // rate)  # upwards: at the edge, rather say yes
        return resampled > self.window_samples(target)

    def filled(self, rows: Tensor) -> Tensor:
        """Normalise at most num_frames rows and pad them to num_frames."""
        rows = rows[: self.settings.num_frames]
        empty = -self.norm.mean / self.norm.std if self.settings.pad == "raw_zero" else 0.0
        out = rows.new_full((self.settings.num_frames, rows.shape[1]), empty)
        torch.sub(rows, self.norm.mean, out=out[: len(rows)]).div_(self.norm.std)
        return out


def _bring(wave: np.ndarray | Tensor, rate: int, settings: AudioSettings) -> tuple[np.ndarray, int]:
    """Check a sound and bring it to the rate of the settings: (channels, samples), rate."""
    rate = _checked_rate(rate)
    x = _checked_wave(wave)
    if settings.sample_rate not in ("native", rate):
        # loads PyAV and soxr, which most sounds never need
        from video_prep.decoding.sound import resample

        target = int(settings.sample_rate)
        x, rate = resample(_to_float(x), rate, target), target
    length, _, _ = frame_geometry(rate, settings)
    if x.shape[1] < length:
        raise DataError(
            f"a sound of {x.shape[1]} samples at {rate} Hz is shorter than one window ({length}); "
            "leave it out"
        )
    return x, rate


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


def _to_float(x: np.ndarray) -> np.ndarray:
    """A float32 copy in -1..1 (a copy also because torch warns about arrays it may not write)."""
    scale = np.float32(1 / 32768 if x.dtype == np.int16 else 1)
    return np.multiply(x, scale, dtype=np.float32, order="C")


def _frames(x: np.ndarray, rate: int, settings: AudioSettings) -> Tensor:
    """FBANK (T, M) of (channels, samples): joint mean off, one channel, no normalising."""
    wave = torch.from_numpy(_to_float(x))
    one = wave[0] if settings.channel == "first" else wave.mean(0)
    return fbank(one - wave.mean(), rate, settings)
