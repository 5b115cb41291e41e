"""The packet index of a video track: which frames are shown when, and what decoding one needs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av

from video_prep.decoding.container import open_container, packets_of

# codecs whose non-reference frames can be skipped without changing any other frame; not AV1,
# where libdav1d then loses frames that are shown again
SKIPPABLE = {"h264", "hevc", "mpeg2video", "mpeg4", "vp9"}


MOST_HELD = 32 << 20  # bytes of packets kept in memory; of longer films they are read again


@dataclass
class PacketIndex:
    """Packets of one video track in decode order, from one pass without seeking.

    `shown` maps each displayed time stamp (in `time_base`) to its packet. With `start`, packets
    before the keyframe that `start` needs are forgotten, so a cut of a long file stays small.
    """

    time_base: Fraction
    codec: str
    origin: Fraction
    start: Fraction | None = None
    count: int = 0  # packets seen
    first: int = 0  # position of the first packet that is not forgotten
    held: list[Any] | None = field(default_factory=list)  # from `first` on; None: too many
    keys: list[tuple[int, int]] = field(default_factory=list)  # (position, time stamp)
    shown: dict[int, int] = field(default_factory=dict)  # time stamp -> position
    shifts: set[int] = field(default_factory=set)  # display minus decoding time of the packets
    guessed: bool = False  # display times are unknown: the n-th frame out has the n-th time stamp
    bad: int = 0  # packets the container marks as damaged
    last_duration: int = 0
    _bytes: int = 0

    def add(self, packet: Any) -> None:
        """Take the next packet of the track."""
        size = packet.size
        if size == 0:
            return
        position = self.count
        self.count += 1
        self._hold(packet, size)
        self.bad += packet.is_corrupt
        pts, dts = packet.pts, packet.dts
        if pts is None:
            self.guessed = True
            if dts is None:
                return
            pts = dts
        if dts is not None:
            self.shifts.add(pts - dts)
        if packet.is_keyframe:
            self.keys.append((position, pts))
            self._forget_before(packet, position, pts)
        if packet.is_discard or (self.codec == "vp8" and not _vp8_shown(packet)):
            return
        self.shown[pts] = position
        self.last_duration = packet.duration or self.last_duration

    def _hold(self, packet: Any, size: int) -> None:
        if self.held is not None:
            self.held.append(packet)
            self._bytes += size
            if self._bytes > MOST_HELD:
                self.held = None

    def _forget_before(self, packet: Any, position: int, pts: int) -> None:
        if self.start is not None and self.seconds(pts) <= self.start:
            self.first, self.held, self._bytes = position, [packet], packet.size

    def seconds(self, pts: int) -> Fraction:
        """A time stamp as seconds from the beginning of the file."""
        return pts * self.time_base - self.origin

    def order(self) -> list[int]:
        """Time stamps of the packets that are not forgotten, in order of display."""
        return sorted(pts for pts, position in self.shown.items() if position >= self.first)

    def times(self) -> list[int]:
        """Displayed time stamps in order."""
        return sorted(self.shown)

    def key_before(self, pts: int) -> int:
        """Position of the last keyframe shown at or before `pts` (the first packet if none is)."""
        return max((at for at, key in self.keys if key <= pts), default=self.first)

    def earlier(self, position: int) -> list[int]:
        """Where else decoding may begin: at the keyframe before `position`, at the first packet."""
        before = [at for at, _ in self.keys if at < position]
        return sorted({0, max(before, default=0)} - {position}, reverse=True)

    def runs(self, wanted: set[int]) -> list[tuple[int, int, set[int]]]:
        """Pieces to decode for the time stamps `wanted`: (first, last position, time stamps)."""
        runs: list[tuple[int, int, set[int]]] = []
        for pts in sorted(wanted, key=self.shown.__getitem__):
            first, last = self.key_before(pts), self.shown[pts]
            first = min(first, last)
            if runs and first <= runs[-1][1]:
                runs[-1] = (min(first, runs[-1][0]), last, runs[-1][2] | {pts})
            else:
                runs.append((first, last, {pts}))
        return runs


def _vp8_shown(packet: Any) -> bool:
    """VP8's hidden reference frames are packets of their own; a bit of the header tells."""
    return bool(memoryview(packet)[0] >> 4 & 1)


def end_time(index: PacketIndex, times: list[int]) -> int:
    """When the last displayed frame ends: its own duration, or the last step between frames."""
    step = index.last_duration or (times[-1] - times[-2] if len(times) > 1 else 0)
    return times[-1] + step


class PacketSource:
    """Packets by position, from memory or, of a film too long for it, by reading it once more."""

    def __init__(self, path: Path, stream: int, index: PacketIndex) -> None:
        self.path, self.index = path, index
        self._stream = stream
        self._container: Any = None
        self._packets: Iterator[Any] = iter(())
        self._next = 0  # position of the next packet of `_packets`

    def __enter__(self) -> PacketSource:
        return self

    def __exit__(self, *args: object) -> None:
        if self._container is not None:
            self._container.close()

    def between(self, first: int, last: int) -> Iterator[Any]:
        """Packets from position `first` to `last`, both included."""
        index = self.index
        if index.held is not None and first >= index.first:
            return iter(index.held[first - index.first : last + 1 - index.first])
        return self._again(first, last)

    def _again(self, first: int, last: int) -> Iterator[Any]:
        if self._container is None or first < self._next:
            self.__exit__()
            self._container = open_container(self.path)
            stream = self._container.streams[self._stream]
            self._packets = packets_of(self._container, stream)
            self._next = 0
        try:
            for packet in self._packets:
                if packet.size:
                    self._next += 1
                    if self._next > first:
                        yield packet
                    if self._next > last:
                        return
        except av.FFmpegError:
            return  # it ended here the first time too
