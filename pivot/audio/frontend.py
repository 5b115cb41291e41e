"""Sound to encoder input: rate, window, FBANK or log-mel, padding and normalising, in one call.

The order of FBANK is that of VIP-ANT's code: bring to the rate, crop the waveform, subtract
its mean over all channels and samples, take one channel, FBANK, cut to num_frames, pad, normalise.
Where the reference surprises, its way is a named setting: `pad: raw_zero` appends 0.0 before
normalising, which is louder than silence; `mean` appends 0 after it.

The order of the log-mel kinds: bring to the rate, take one channel, crop, fill up the waveform,
log-mel of each window; or for `views: fusion` fill up, log-mel of the whole sound, its four views.
LAION-CLAP rounds samples to 16 bits first, as shards hold them; here it is not done again.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pivot.audio.crop import Rng, crop
from pivot.audio.fbank import fbank, frame_geometry, one_thread, require_fbank
from pivot.audio.fill import fill
from pivot.audio.fusion_views import VIEWS, fusion_views
from pivot.audio.mel import Edges, check_window, log_mel, window_samples
from pivot.audio.mel import num_frames as mel_frames
from pivot.audio.norms import (
    NAMED,
    NO_NORM,
    Norm,
    fingerprint,
    front_end,
    input_facts,
    parse_norm,
    read_norm,
)
from pivot.audio.views import pack
from pivot.audio.waves import bring, to_float
from pivot.errors import DataError, SettingsError
from pivot.settings import AudioSettings, FrontEndSettings
from pivot.settings.front_ends import HtkDbSettings, HtkLogSettings, SlaneyDbSettings
from video_prep.shards import ShardFolder

__all__ = [
    "FrontEnd",
    "MelFrontEnd",
    "Norm",
    "fingerprint",
    "front_end",
    "input_facts",
    "make_front_end",
    "real_frames",
    "resolve_norm",
]


def resolve_norm(
    settings: FrontEndSettings, shards: ShardFolder | str | Path | None = None
) -> Norm:
    """The norm that `audio.norms` names: vip_ant, ast, shards (SHARDS/fbank.json), or a file.

    A file is refused when it was measured with another front end, and that of the shards also when
    it was measured on other clips than the folder holds now. Log-mel has none.
    """
    if not isinstance(settings, AudioSettings):
        return NO_NORM
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


def make_front_end(settings: FrontEndSettings, norm: Norm | None = None) -> FrontEnd:
    """The front end of these settings: FrontEnd for FBANK, MelFrontEnd for the other kinds.

    norm: what FBANK is normalised with, by default what `audio.norms` names.
    """
    if isinstance(settings, AudioSettings):
        return FrontEnd(settings, resolve_norm(settings) if norm is None else norm)
    return MelFrontEnd(settings, NO_NORM if norm is None else norm)


@one_thread()
def real_frames(wave: np.ndarray | Tensor, rate: int, settings: FrontEndSettings) -> Tensor:
    """FBANK (T, M) of a whole sound: no crop, no padding, not normalised."""
    audio = require_fbank(settings, "FBANK of a whole sound")
    return _frames(*_bring(wave, rate, audio), audio)


class FrontEnd:
    """Sound to encoder input, FBANK, under one set of settings and one norm."""

    settings: FrontEndSettings
    norm: Norm

    def __init__(self, settings: FrontEndSettings, norm: Norm) -> None:
        self.settings = require_fbank(settings, type(self).__name__)
        self.norm = norm

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one encoder input: (num_frames, mel bins)."""
        return self.settings.num_frames, self.settings.num_mel_bins

    @one_thread()
    def __call__(self, wave: np.ndarray | Tensor, rate: int, rng: Rng | None = None) -> Tensor:
        """Sound (channels, samples), int16 or float in -1..1 -> float32 encoder input of `shape`.

        rng draws what training draws, which is the window of a long sound; None takes the same one
        every time. Raises DataError for a sound that is empty, not finite, or shorter than one
        FBANK window, and for a bad rate.
        """
        x, rate = _bring(wave, rate, self._fbank)
        x = crop(x, self.window_samples(rate), rule=self._fbank.crop, rng=rng)
        return self.filled(_frames(x, rate, self._fbank))

    @property
    def _fbank(self) -> AudioSettings:
        return require_fbank(self.settings, "FrontEnd")

    def crop_frames(self, rows: np.ndarray, rng: Rng | None = None) -> np.ndarray:
        """View of the frames that are used of a whole sound's FBANK (T, M), of any type.

        This is for FBANK that was kept (`real_frames`). A longer sound is cut between two frames,
        whereas a call cuts it at any sample; a shorter one comes to the same. Raises
        SettingsError for the vip_ant crop of a longer sound: its rule looks at samples.
        """
        if len(rows) <= self.uncropped_frames():
            return rows[: self._fbank.num_frames]
        if self._fbank.crop == "vip_ant":
            raise SettingsError(f"audio.crop vip_ant needs samples to crop {len(rows)} frames")
        return crop(rows.T, self._fbank.num_frames, rule="plain", rng=rng).T

    def uncropped_frames(self) -> int:
        """Most frames of a whole sound that a call never crops; vip_ant drops its last ones."""
        s = self._fbank
        spare = (50 - s.frame_length_ms) // s.frame_shift_ms if s.crop == "vip_ant" else 0
        return s.num_frames + max(0, int(spare))

    def window_samples(self, rate: int) -> int:
        """Samples that are cut from a longer sound, at the rate of the FBANK.

        plain: exactly num_frames frames. vip_ant: 50 ms more than their steps (10.05 s for 1000).
        """
        s = self._fbank
        if s.crop == "vip_ant":
            return int((s.num_frames * s.frame_shift_ms / 1000 + 0.05) * rate)
        length, shift, _ = frame_geometry(rate, s)
        return length + (s.num_frames - 1) * shift

    def needs_crop(self, samples: int, rate: int) -> bool:
        """Whether the input of such a sound depends on rng, so that it must not be kept.

        It does where the sound is cut, and in log-mel with `jitter` always.
        """
        target = rate if self._fbank.sample_rate == "native" else self._fbank.sample_rate
        return _resampled(samples, rate, target) > self.window_samples(target)

    def filled(self, rows: Tensor) -> Tensor:
        """Normalise at most num_frames rows and pad them to num_frames."""
        rows = rows[: self._fbank.num_frames]
        empty = -self.norm.mean / self.norm.std if self._fbank.pad == "raw_zero" else 0.0
        out = rows.new_full((self._fbank.num_frames, rows.shape[1]), empty)
        torch.sub(rows, self.norm.mean, out=out[: len(rows)]).div_(self.norm.std)
        return out


class MelFrontEnd(FrontEnd):
    """Sound to encoder input, log-mel: one window, several (audio.views), or views of fusion.

    It shares the interface of FrontEnd; what is of FBANK alone (`crop_frames`, `filled`) raises
    SettingsError.
    """

    def __init__(
        self, settings: HtkLogSettings | HtkDbSettings | SlaneyDbSettings, norm: Norm = NO_NORM
    ) -> None:
        if norm != NO_NORM:
            raise SettingsError(
                f"audio.kind {settings.kind} has its own range and takes no mean and deviation "
                f"({norm.source}); leave them out"
            )
        check_window(settings)
        self.settings = self._mel = settings
        self.norm = norm

    @property
    def _fused(self) -> bool:
        return isinstance(self._mel, HtkDbSettings) and self._mel.views == "fusion"

    @property
    def _jitter(self) -> tuple[float, float]:
        return self._mel.jitter if isinstance(self._mel, HtkLogSettings) else (0.0, 0.0)

    @property
    def shape(self) -> tuple[int, ...]:
        """(num_frames, mel bins), or (views, num_frames + 1, mel bins) with a row of shares."""
        s, views = self._mel, VIEWS if self._fused else self._mel.windows
        if views == 1:
            return s.num_frames, s.num_mel_bins
        return views, s.num_frames + 1, s.num_mel_bins

    @one_thread()
    def __call__(self, wave: np.ndarray | Tensor, rate: int, rng: Rng | None = None) -> Tensor:
        """Sound (channels, samples), int16 or float in -1..1 -> float32 encoder input of `shape`.

        rng draws, in this order, the crop of a sound that is longer than all windows, or the three
        windows of fusion, and with `jitter` the mel edges; None takes the middle and the settings'
        edges. Raises DataError for a sound that is empty or not finite, and for a bad rate.
        """
        x, _ = bring(wave, rate, self._mel.sample_rate)
        x = to_float(x)
        x = x[:1] if self._mel.channel == "first" else x.mean(0, keepdims=True)
        return self._fusion(x, rng) if self._fused else self._windows(x, rng)

    def _windows(self, x: np.ndarray, rng: Rng | None) -> Tensor:
        """Encoder input of x (1, samples), window after window."""
        s, one = self._mel, window_samples(self._mel)
        x = crop(x, s.windows * one, rule="plain", rng=rng)
        edges = self._edges(rng)
        parts = torch.from_numpy(fill(x, s.windows * one, s.fill)).reshape(s.windows, one)
        mels = [log_mel(part, s, edges) for part in parts]
        if s.windows == 1:
            return mels[0]
        shares = torch.tensor([x.shape[1] / one - i for i in range(s.windows)])
        return pack(torch.stack(mels), shares.clamp(0, 1))

    def _fusion(self, x: np.ndarray, rng: Rng | None) -> Tensor:
        """Encoder input of x (1, samples): four views of the whole."""
        assert isinstance(self._mel, HtkDbSettings)
        whole = fill(x, window_samples(self._mel), self._mel.fill)
        mel = log_mel(torch.from_numpy(whole)[0], self._mel)
        return pack(*fusion_views(mel, self._mel.num_frames, rng, self._mel.antialias))

    def _edges(self, rng: Rng | None) -> Edges | None:
        """Mel edges of one sound, drawn as PaSST draws them; None without jitter."""
        low, high = self._jitter
        if rng is None or not (low or high):
            return None
        s = self._mel
        return s.low_freq + rng.uniform(0, low), s.high_freq + high / 2 - rng.uniform(0, high)

    def window_samples(self, rate: int | None = None) -> int:
        """Samples of all windows, at the rate of the settings; fusion hears of more than these."""
        return self._mel.windows * window_samples(self._mel)

    def needs_crop(self, samples: int, rate: int) -> bool:
        """Whether the input of such a sound depends on rng: see FrontEnd.needs_crop."""
        if any(self._jitter):
            return True
        resampled = _resampled(samples, rate, self._mel.sample_rate)
        if self._fused:
            return mel_frames(resampled, self._mel) > self._mel.num_frames
        return resampled > self.window_samples()


def _resampled(samples: int, rate: int, target: int) -> int:
    """Samples at the rate `target`, upwards: at the edge, rather too many."""
    return -(-samples * target // rate)


def _bring(wave: np.ndarray | Tensor, rate: int, settings: AudioSettings) -> tuple[np.ndarray, int]:
    """Check a sound and bring it to the rate of the settings: (channels, samples), rate."""
    x, rate = bring(wave, rate, settings.sample_rate)
    length, _, _ = frame_geometry(rate, settings)
    if x.shape[1] < length:
        raise DataError(
            f"a sound of {x.shape[1]} samples at {rate} Hz is shorter than one window ({length}); "
            "leave it out"
        )
    return x, rate


def _frames(x: np.ndarray, rate: int, settings: AudioSettings) -> Tensor:
    """FBANK (T, M) of (channels, samples): joint mean off, one channel, no normalising."""
    wave = torch.from_numpy(to_float(x))
    one = wave[0] if settings.channel == "first" else wave.mean(0)
    return fbank(one - wave.mean(), rate, settings)
