"""Sound as the source's own packets: copied into Matroska without decoding, and read back.

A copy begins with up to one second before the clip, so that decoders recover as they do in the
source, and its facts say what to leave out: `primers`, packets at its beginning whose samples are
not counted; `lead`, seconds of samples after these and before the clip; `tail`, seconds of padding
at its end; `seconds`, the most that belongs to the clip (None: all). Whether the sound is silent
or damaged is not known of a copy, because nothing is decoded.
"""

from __future__ import annotations

import io
import itertools
import math
import struct
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.codec.context import Flags2

from video_prep.decoding.container import collect_sound, exact, packets_of
from video_prep.decoding.sound_track import PREROLL, SoundTrack, within
from video_prep.errors import ClipError

# codecs whose first packet gives no samples
_NO_FIRST = {"vorbis"}
_LATE = Fraction(1, 10)  # seconds by which a container's time stamps may be late


@dataclass
class CopiedSound:
    """Bytes of a Matroska file with one sound track, and the facts that a reader needs."""

    data: bytes
    codec: str
    rate: int
    channels: int
    samples: int  # as the time stamps tell
    primers: int
    lead: float
    tail: float
    seconds: float | None
    begins: float
    bad_packets: int
    truncated: bool = False

    def facts(self) -> dict[str, Any]:
        """Facts of the clip's JSON."""
        names = "codec rate channels bad_packets begins primers lead tail seconds".split()
        sound = {name: getattr(self, name) for name in names}
        size = {"sample_rate": self.rate, "channels": self.channels, "samples": self.samples}
        return {**size, "sound": sound}


def copy_sound(
    path: str | Path, start: float | None = None, end: float | None = None
) -> CopiedSound:
    """Copy the sound track of an audio or video file between `start` and `end` seconds.

    Raises ClipError: `no_audio`, or `sound_not_copyable` where Matroska cannot hold the codec.
    """
    copied: CopiedSound = collect_sound(
        Path(path), lambda stream, origin: CopyTrack(stream, origin, start, end)
    )
    return copied


def read_copied(data: bytes, facts: dict[str, Any]) -> tuple[np.ndarray, int]:
    """The clip's samples from a copy: (channels, samples) as `read_sound` gives, and the rate.

    `facts`: the facts of the clip, as its JSON member holds them. Equal to what the source gives
    to the sample; within 1 ms where the source's own time stamps are rounded to milliseconds and
    its decoder swallows a codec delay (AAC and Opus in Matroska).
    """
    try:
        with av.open(io.BytesIO(data), "r") as container:
            return _read(container, facts["sound"])
    except av.FFmpegError as error:
        text = f"the copied sound cannot be read: {error.strerror}"
        raise ClipError("not_media", text) from None


def _read(container: Any, known: dict[str, Any]) -> tuple[np.ndarray, int]:
    stream = container.streams.audio[0]
    stream.codec_context.flags2 |= Flags2.skip_manual
    packets = packets_of(container, stream)
    for packet in itertools.islice(packets, known["primers"]):
        with suppress(av.FFmpegError):
            packet.decode()
    first = next(packets)
    # the copy counts from this packet, whose time stamp alone is not rounded
    origin = (first.pts or 0) * stream.time_base + Fraction(known["lead"])
    track = SoundTrack(stream, origin, 0.0, known["seconds"], preroll=math.inf)
    for packet in itertools.chain([first], packets):
        track.feed(packet)
    sound = track.finish(Path("the copied sound"))
    padding = round(known["tail"] * sound.rate) - track.left_out()
    return sound.wave[:, : -padding if padding > 0 else None], sound.rate


class CopyTrack:
    """Copies the packets of one sound track between `start` and `end` seconds, one by one."""

    def __init__(
        self, stream: Any, origin: Fraction, start: float | None, end: float | None
    ) -> None:
        self.stream, self.codec = stream, stream.codec_context.name
        self.start, self.end = exact(start), exact(end)
        self.past_end = False
        self.bad_packets = 0
        self._tick, self._origin = stream.time_base, origin
        self._file = io.BytesIO()
        self._copy: Any = None
        self._written = 0
        self._primers: list[Any] = []  # packets before the first that gives samples
        self._anchor = 0  # time stamp of the first packet that gives samples
        self._zero = 0  # time stamp of the source that is 0 in the copy
        self._primed: Fraction | None = None  # seconds at which the codec's priming ends
        self._first: Fraction | None = None  # seconds of the first sample that is no priming
        self._moved = Fraction(0)  # seconds by which a time stamp after the priming was rounded
        self._last = Fraction(0)  # seconds at which the last packet's samples end
        self._tail = 0  # samples of padding in the last packet

    def feed(self, packet: Any) -> None:
        """Copy a packet that lies in the bounds or is needed to decode one that does."""
        if not packet.size:
            return
        if packet.pts is None:
            packet.pts = packet.dts
        rate = self.stream.codec_context.sample_rate
        if packet.pts is None or packet.is_corrupt or not rate:
            self.bad_packets += 1
            return
        begins = packet.pts * self._tick - self._origin
        ends = begins + (packet.duration or 0) * self._tick
        self.past_end = self.end is not None and begins > self.end + _LATE
        if self.past_end or (self.start is not None and ends < self.start - PREROLL):
            return
        if packet.is_discard and self._first is not None:
            return  # hidden by an edit list, at the end
        priming, self._tail = _padding(packet)
        if priming:
            self._primed = begins + Fraction(priming, rate)
        elif self._primed is not None and abs(begins - self._primed) <= self._tick:
            self._moved = begins - self._primed
        if self._first is not None:
            self._write(packet)
        elif packet.is_discard or (self.codec in _NO_FIRST and not self._primers):
            self._primers.append(packet)
            return
        else:
            self._first = begins if self._primed is None else max(begins, self._primed)
            self._anchored(packet)
        self._last = ends - Fraction(self._tail, rate)

    def _anchored(self, packet: Any) -> None:
        """Begin the copy so that this packet lies on a whole second: Matroska rounds all others."""
        before = packet.pts - self._primers[0].pts if self._primers else 0
        self._anchor = packet.pts
        self._zero = packet.pts - round(math.ceil(before * self._tick) / self._tick)
        self._open()
        for one in (*self._primers, packet):
            self._write(one)

    def _write(self, packet: Any) -> None:
        packet.pts = packet.dts = max(packet.pts - self._zero, 0)
        packet.stream = self._copy.streams[0]
        try:
            self._copy.mux(packet)
            self._written += 1
        except av.FFmpegError:
            self.bad_packets += 1

    def _open(self) -> None:
        # bitexact: no version, date or random number in the file
        self._copy = av.open(self._file, "w", format="matroska", options={"fflags": "+bitexact"})
        try:
            self._copy.add_stream_from_template(self.stream)
        except (av.FFmpegError, ValueError):
            raise ClipError(
                "sound_not_copyable",
                f"Matroska holds no sound of the codec {self.codec}; use --sound flac",
            ) from None

    def finish(self, path: Path) -> CopiedSound:
        """The copy; ClipError where no packet lies in the bounds."""
        first = None if self._first is None else self._first + self._moved
        begins = first if first is None or self.start is None else max(first, self.start)
        ends = self._last if self.end is None else min(self._last, self.end)
        if begins is None or ends <= begins or self._written <= len(self._primers):
            raise ClipError("no_audio", f"{path} holds no sound{within(self.start, self.end)}")
        self._copy.close()
        codec = self.stream.codec_context
        start, rate = self.start or Fraction(0), codec.sample_rate
        at = round((begins - start) * rate)  # position of the first sample, as SoundTrack counts
        most = None if self.end is None else round((self.end - start) * rate) - at
        return CopiedSound(
            self._file.getvalue(),
            self.codec,
            rate,
            codec.layout.nb_channels,
            samples=round((ends - begins) * rate),
            primers=len(self._primers),
            lead=_decimal(begins - (self._anchor * self._tick - self._origin + self._moved)),
            tail=_decimal(Fraction(self._tail, rate)),
            seconds=None if most is None else _decimal(Fraction(most, rate)),
            begins=_decimal(begins - start),
            bad_packets=self.bad_packets,
        )


def _padding(packet: Any) -> tuple[int, int]:
    """Samples at the start and at the end of a packet that are not part of the sound."""
    if not packet.has_sidedata("skip_samples"):
        return 0, 0
    data = bytes(packet.get_sidedata("skip_samples"))
    return struct.unpack("<II", data[:8]) if len(data) >= 8 else (0, 0)


def _decimal(seconds: Fraction) -> float:
    return round(float(seconds), 9)
