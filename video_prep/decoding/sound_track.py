"""Decodes one sound track packet by packet: keeps what lies in bounds, counts what is bad."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from video_prep.decoding.waves import Channel, Rate, WaveFitter
from video_prep.errors import ClipError

PREROLL = 1  # seconds before `start` from which packets are decoded: all codecs recover within
_SAMPLE_TYPES = {
    "u8": np.uint8,
    "s16": np.int16,
    "s32": np.int32,
    "s64": np.int64,
    "flt": np.float32,
    "dbl": np.float64,
}
_GAP = 0.05  # seconds; smaller jumps of a timestamp are rounding of the container, not a gap


@dataclass
class Sound:
    """A sound, (channels, samples) int16 or float32 at `rate` Hz, with facts of its source."""

    wave: np.ndarray
    rate: int
    codec: str = ""
    source_rate: int = 0
    source_channels: int = 0
    bad_packets: int = 0
    truncated: bool = False
    begins: float = 0.0  # seconds from the clip's start to the first sample

    def facts(self) -> dict[str, Any]:
        """Facts of the clip's JSON."""
        channels, samples = self.wave.shape
        return {
            "sample_rate": self.rate,
            "channels": channels,
            "samples": samples,
            "sound": {
                "codec": self.codec,
                "rate": self.source_rate,
                "channels": self.source_channels,
                "bad_packets": self.bad_packets,
                "begins": round(self.begins, 6),
            },
        }


class SoundTrack:
    """Collects the samples of one sound track between `start` and `end` seconds, packet by packet.

    A packet that cannot be decoded is counted and left out; the rest is kept, in the wanted
    channels and rate (as int16 with `short`).
    """

    def __init__(
        self,
        stream: Any,
        origin: Fraction,
        start: float | None = None,
        end: float | None = None,
        *,
        channel: Channel = "all",
        sample_rate: Rate = "native",
        short: bool = False,
        preroll: float = PREROLL,
    ) -> None:
        self.stream, self.start, self.end, self.preroll = stream, start, end, preroll
        self.codec = stream.codec_context.name
        self.bad_packets = 0
        self.past_end = False
        self._tick, self._zero = float(stream.time_base), float(origin)
        self._want = channel, sample_rate, short
        self._fitter: WaveFitter | None = None
        self._kind = (0, "", "")  # rate, layout and format of the first frame
        self._channels = 0
        self._resampler: Any = None
        self._next: int | None = None  # position of the next sample, counted from `start`
        self._begins: int | None = None
        self._kept = 0

    def feed(self, packet: Any) -> None:
        """Decode one packet (or the empty one that flushes) and keep what lies in the bounds."""
        if self._skippable(packet):
            return
        try:
            for frame in packet.decode():
                self._keep(frame, packet)
        except av.FFmpegError:
            self.bad_packets += 1

    def _skippable(self, packet: Any) -> bool:
        """Packets well before `start` need no decoding."""
        pts = packet.pts
        if pts is None:
            return False
        begins = pts * self._tick - self._zero
        ends = begins + (packet.duration or 0) * self._tick
        self.past_end = self.end is not None and begins > self.end + 1
        return self.past_end or (self.start is not None and ends < self.start - self.preroll)

    def _keep(self, frame: Any, packet: Any) -> None:
        for same in self._uniform(frame):
            rate, samples = self._kind[0], same.samples
            at = self._next or 0
            pts = same.pts
            if pts is not None:
                tick = self._tick if same is frame else float(same.time_base)
                exact = self._position(pts * tick)
                if self._next is None:
                    at = self._first_position(frame, packet, exact)
                elif abs(exact - at) > _GAP * rate:
                    at = exact
            self._next = at + samples
            low, high = self._inside(at, samples)
            if low < high and self._fitter is not None:
                if self._begins is None:
                    self._begins = at + low
                self._fitter.add(_samples(same, self._want[0] == "first")[:, low:high])
                self._kept += high - low

    def _position(self, stamp: float) -> int:
        """Position of the sample at a time stamp in seconds, counted from `start`."""
        return round((stamp - self._zero - (self.start or 0.0)) * self._kind[0])

    def _first_position(self, frame: Any, packet: Any, exact: int) -> int:
        """Where the sound begins: its packet's time and the samples that were left out of it.

        The frame's own time, `exact`, is rounded to the container's ticks.
        """
        if packet.pts is None:
            return exact
        rate = self._kind[0]
        left_out = round((packet.duration or 0) * self._tick * rate) - frame.samples
        at = self._position(packet.pts * self._tick) + max(left_out, 0)
        return at if abs(at - exact) <= self._tick * rate else exact

    def _inside(self, at: int, samples: int) -> tuple[int, int]:
        """Which samples of a frame that begins at position `at` lie in the bounds."""
        low, high = 0, samples
        if self.start is not None:
            low = min(max(-at, 0), high)
        if self.end is not None:
            high = max(min(high, self._stop(self.end) - at), low)
        return low, high

    def _stop(self, end: float) -> int:
        """Position of the first sample that lies after the bounds."""
        return round((end - (self.start or 0.0)) * self._kind[0])

    def left_out(self) -> int:
        """Samples decoded so far that lie after the bounds."""
        return max((self._next or 0) - self._stop(self.end), 0) if self.end is not None else 0

    def _uniform(self, frame: Any) -> list[Any]:
        """The frame in the first frame's rate, layout and format (streams may change midway)."""
        kind = (frame.sample_rate, frame.layout.name, frame.format.name)
        if self._fitter is None:
            self._kind, self._channels = kind, frame.layout.nb_channels
            self._fitter = WaveFitter(kind[0], *self._want)
        if kind == self._kind:
            return [frame]
        if self._resampler is None or self._resampler[0] != kind:
            rate, layout, form = self._kind
            self._resampler = kind, av.AudioResampler(form, layout, rate)
        return list(self._resampler[1].resample(frame))

    def finish(self, path: Path) -> Sound:
        """All samples kept; ClipError where there are none."""
        if self._fitter is None and self.bad_packets:
            raise ClipError(
                "no_audio", f"{path}: none of {self.bad_packets} packets of sound can be decoded"
            )
        wave = self._fitter.finish() if self._fitter is not None and self._kept else None
        if self._fitter is None or wave is None or not wave.size:
            raise ClipError("no_audio", f"{path} holds no sound{within(self.start, self.end)}")
        return Sound(
            wave,
            self._fitter.rate,
            self.codec,
            source_rate=self._kind[0],
            source_channels=self._channels,
            bad_packets=self.bad_packets,
            begins=(self._begins or 0) / self._kind[0],
        )


def within(start: Any, end: Any) -> str:
    """Bounds in words, for messages."""
    if start is None and end is None:
        return ""
    return f" between {float(start or 0):g} and {'its end' if end is None else f'{float(end):g} s'}"


def _samples(frame: Any, first: bool = False) -> np.ndarray:
    """Samples of a decoded frame: (channels, samples), int16 kept, all else float32.

    `first`: of the first channel alone.
    """
    form = frame.format
    kind, channels = _SAMPLE_TYPES[form.name.removesuffix("p")], frame.layout.nb_channels
    if form.is_planar:
        # PyAV's own to_ndarray reads planes that are not there beyond 8 channels, and crashes
        planes = frame.planes[: 1 if first else channels]
        parts = [np.frombuffer(plane, kind, frame.samples) for plane in planes]
        raw = parts[0][None] if first else np.stack(parts)
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
