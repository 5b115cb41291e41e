"""Reads sounds from audio and video files: native rate or soxr HQ, what is bad is counted."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import av
import numpy as np
import soundfile
import soxr

from video_prep.container import check_file, open_container
from video_prep.errors import ClipError, UserError

Channel = Literal["first", "mean", "all"]
_SEEKABLE = {"WAV", "FLAC", "AIFF", "W64", "RF64", "CAF"}  # libsndfile's seek is exact in these
_SAMPLE_TYPES = {
    "u8": np.uint8,
    "s16": np.int16,
    "s32": np.int32,
    "s64": np.int64,
    "flt": np.float32,
    "dbl": np.float64,
}
_GAP = 0.05  # seconds; smaller jumps of a timestamp are rounding of the container, not a gap
_INT16 = 32768.0
_SILENT = 2**-12  # peak below -72 dB of full scale


def read_sound(
    path: str | Path,
    *,
    sample_rate: int | Literal["native"] = "native",
    channel: Channel = "all",
    start: float | None = None,
    end: float | None = None,
) -> tuple[np.ndarray, int]:
    """Sound of an audio or video file, from `start` to `end` seconds, and its rate in Hz.

    Returns (channels, samples): int16 where the file holds 16-bit samples and nothing had to be
    computed, float32 (full scale 1) otherwise. libsndfile reads first; what it cannot open (or a
    FLAC without a length in its header) FFmpeg reads. Raises ClipError, a one-line UserError.
    """
    sound = load_sound(path, start, end)
    return fit(sound.wave, sound.rate, sample_rate, channel)


def fit(
    wave: np.ndarray, rate: int, sample_rate: int | Literal["native"], channel: Channel
) -> tuple[np.ndarray, int]:
    """Bring (channels, samples) to the wanted channel first, then to the wanted rate."""
    if channel == "first":
        wave = wave[:1]
    elif channel == "mean" and len(wave) > 1:
        wave = to_float(wave).mean(axis=0, keepdims=True, dtype=np.float32)
    elif channel not in ("first", "mean", "all"):
        raise UserError(f"channel {channel!r} is unknown; choose first, mean or all")
    if sample_rate == "native":
        return wave, rate
    return resample(wave, rate, sample_rate), sample_rate


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
    return bool(np.abs(wave.astype(np.int32)).max(initial=0) < _SILENT * _INT16)


@dataclass
class Sound:
    """A sound as its file holds it: (channels, samples) int16 or float32, with facts."""

    wave: np.ndarray
    rate: int
    bad_packets: int = 0
    codec: str = ""
    truncated: bool = False


def load_sound(path: str | Path, start: float | None = None, end: float | None = None) -> Sound:
    """Sound of an audio file at its own rate with all channels; raises ClipError."""
    path = Path(path)
    check_file(path)
    try:
        sound = _load_soundfile(path, start, end)
    except (soundfile.LibsndfileError, ValueError):
        sound = None  # FFmpeg opens more, and names what is wrong where it cannot either
    if sound is None:
        sound = _load_container(path, start, end)
    if sound.wave.shape[1] == 0:
        raise ClipError("no_audio", f"{path} holds no sound{within(start, end)}")
    return sound


def within(start: float | None, end: float | None) -> str:
    """Bounds in words, for messages."""
    if start is None and end is None:
        return ""
    return f" between {start or 0:g} and {'its end' if end is None else f'{end:g} s'}"


def _load_soundfile(path: Path, start: float | None, end: float | None) -> Sound | None:
    with soundfile.SoundFile(path) as file:
        if file.frames <= 0 or file.frames >= 1 << 48:
            return None  # a FLAC written to a pipe has no length
        first = 0 if start is None else min(round(start * file.samplerate), file.frames)
        last = file.frames if end is None else min(round(end * file.samplerate), file.frames)
        skip = first if file.format in _SEEKABLE else 0
        if skip:
            file.seek(skip)
        kind = "int16" if file.subtype == "PCM_16" else "float32"
        wave = file.read(last - skip, dtype=kind, always_2d=True)
        short = len(wave) < last - skip
        return Sound(
            np.ascontiguousarray(wave[first - skip :].T),
            file.samplerate,
            codec=f"{file.format} {file.subtype}".lower(),
            truncated=short,
        )


def _load_container(path: Path, start: float | None, end: float | None) -> Sound:
    with open_container(path) as container:
        if not container.streams.audio:
            raise ClipError("no_audio", f"{path} has no sound track")
        stream = container.streams.audio[0]
        origin = max(Fraction(container.start_time or 0, av.time_base), Fraction(0))
        track = SoundTrack(stream, origin, start, end)
        broken = False
        try:
            for packet in container.demux(stream):
                track.feed(packet)
                if track.past_end:
                    break
        except av.FFmpegError:
            broken = True
        sound = track.finish(path)
        sound.truncated = broken
        return sound


@dataclass
class SoundTrack:
    """Collects the samples of one sound track between `start` and `end` seconds, packet by packet.

    A packet that cannot be decoded is counted and left out; the rest is kept.
    """

    stream: Any
    origin: Fraction
    start: float | None = None
    end: float | None = None
    bad_packets: int = 0
    past_end: bool = False
    _parts: list[np.ndarray] = field(default_factory=list)
    _first: Any = None
    _resampler: Any = None
    _next: int = 0  # position of the next sample, counted from `start`

    def __post_init__(self) -> None:
        self._tick, self._zero = float(self.stream.time_base), float(self.origin)

    def feed(self, packet: Any) -> None:
        """Decode one packet (or the empty one that flushes) and keep what lies in the bounds."""
        if self._skippable(packet):
            return
        try:
            frames = packet.decode()
        except av.FFmpegError:
            self.bad_packets += 1
            return
        for frame in frames:
            self._keep(frame)

    def _skippable(self, packet: Any) -> bool:
        """Packets well before `start` need no decoding: sound recovers within a second."""
        if packet.pts is None:
            return False
        seconds = packet.pts * self._tick - self._zero
        self.past_end = self.end is not None and seconds > self.end + 1
        return self.past_end or (self.start is not None and seconds < self.start - 1)

    def _keep(self, frame: Any) -> None:
        for same in self._uniform(frame):
            wave = _samples(same)
            at = self._next
            if same.pts is not None:
                tick = self._tick if same is frame else float(same.time_base)
                seconds = same.pts * tick - self._zero - (self.start or 0.0)
                exact = round(seconds * same.sample_rate)
                if not self._parts or abs(exact - at) > _GAP * same.sample_rate:
                    at = exact
            self._next = at + wave.shape[1]
            self._parts.append(self._cut(wave, at, same.sample_rate))

    def _cut(self, wave: np.ndarray, at: int, rate: int) -> np.ndarray:
        low, high = 0, wave.shape[1]
        if self.start is not None:
            low = min(max(-at, 0), high)
        if self.end is not None:
            high = max(min(high, round((self.end - (self.start or 0.0)) * rate) - at), low)
        return wave[:, low:high]

    def _uniform(self, frame: Any) -> list[Any]:
        """The frame in the first frame's rate, layout and format (streams may change midway)."""
        if self._first is None:
            self._first = frame
        first = self._first
        if (frame.sample_rate, frame.layout.name, frame.format.name) == (
            first.sample_rate,
            first.layout.name,
            first.format.name,
        ):
            return [frame]
        self._resampler = av.AudioResampler(first.format.name, first.layout.name, first.sample_rate)
        return list(self._resampler.resample(frame))

    def finish(self, path: Path) -> Sound:
        """All samples kept so far; ClipError where there are none."""
        if self._first is None and self.bad_packets:
            raise ClipError(
                "no_audio", f"{path}: none of {self.bad_packets} packets of sound can be decoded"
            )
        if not sum(part.shape[1] for part in self._parts):
            raise ClipError("no_audio", f"{path} holds no sound{within(self.start, self.end)}")
        codec = self.stream.codec_context.name
        return Sound(
            np.concatenate(self._parts, axis=1), self._first.sample_rate, self.bad_packets, codec
        )


def _samples(frame: Any) -> np.ndarray:
    """Samples of a decoded frame: (channels, samples), int16 kept, all else float32."""
    kind, channels = _SAMPLE_TYPES[frame.format.name.removesuffix("p")], frame.layout.nb_channels
    if frame.format.is_planar:
        # PyAV's own to_ndarray reads planes that are not there beyond 8 channels, and crashes
        planes = frame.planes[:channels]
        raw = np.stack([np.frombuffer(plane, kind, frame.samples) for plane in planes])
    else:
        raw = np.frombuffer(frame.planes[0], kind, frame.samples * channels)
        raw = raw.reshape(-1, channels).T
    if raw.dtype == np.int16:
        return raw
    if raw.dtype == np.uint8:
        return (raw.astype(np.float32) - 128) / 128
    if raw.dtype.kind == "i":
        return (raw / float(1 << (8 * raw.dtype.itemsize - 1))).astype(np.float32)
    return raw.astype(np.float32, copy=False)
