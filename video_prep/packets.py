"""The packet index of a video track: which frames are shown when, and what decoding one needs."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

# codecs whose non-reference frames can be skipped without changing any other frame; not AV1,
# where libdav1d then loses frames that are shown again
SKIPPABLE = {"h264", "hevc", "mpeg2video", "mpeg4", "vp9"}


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
    packets: list[Any] = field(default_factory=list)
    keys: list[tuple[int, int]] = field(default_factory=list)  # (position, time stamp)
    shown: dict[int, int] = field(default_factory=dict)  # time stamp -> position
    shifts: set[int] = field(default_factory=set)  # display minus decoding time of the packets
    guessed: bool = False  # display times are unknown: the n-th frame out has the n-th time stamp
    bad: int = 0  # packets the container marks as damaged
    last_duration: int = 0
    _freed: int = 0

    def add(self, packet: Any) -> None:
        """Take the next packet of the track."""
        if packet.size == 0:
            return
        position = len(self.packets)
        self.packets.append(packet)
        self.bad += packet.is_corrupt
        pts = packet.pts
        if pts is None:
            self.guessed = True
            if packet.dts is None:
                return
            pts = packet.dts
        if packet.dts is not None:
            self.shifts.add(pts - packet.dts)
        if packet.is_keyframe:
            self.keys.append((position, pts))
            self._forget_before(position, pts)
        if packet.is_discard or (self.codec == "vp8" and not _vp8_shown(packet)):
            return
        self.shown[pts] = position
        self.last_duration = packet.duration or self.last_duration

    def _forget_before(self, position: int, pts: int) -> None:
        if self.start is not None and self.seconds(pts) <= self.start:
            for i in range(self._freed, position):
                self.packets[i] = None
            self._freed = position

    def seconds(self, pts: int) -> Fraction:
        """A time stamp as seconds from the beginning of the file."""
        return pts * self.time_base - self.origin

    def kept(self) -> list[Any]:
        """Packets that are still held, in decode order."""
        return self.packets[self._freed :]

    def order(self) -> list[int]:
        """Time stamps of the held packets in order of display."""
        return sorted(pts for pts, position in self.shown.items() if position >= self._freed)

    def times(self) -> list[int]:
        """Displayed time stamps in order."""
        return sorted(self.shown)

    def key_before(self, pts: int) -> int:
        """Position of the last keyframe shown at or before `pts` (the first packet if none is)."""
        return max((at for at, key in self.keys if key <= pts), default=self._freed)

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


def target_times(first: Fraction, last: Fraction, count: int, policy: str) -> list[Fraction]:
    """`count` equally spaced times in [first, last] seconds.

    midpoints: the middle of each of `count` equal pieces. endpoints: both ends included, as
    audioset-dl did (`b + i * (e - b) / (count - 1)`); the last is then clamped to the last frame.
    """
    length = last - first
    if policy == "midpoints":
        return [first + length * (2 * i + 1) / (2 * count) for i in range(count)]
    return [first + length * i / max(count - 1, 1) for i in range(count)]


def at_or_before(index: PacketIndex, times: list[int], wanted: list[Fraction]) -> list[int]:
    """For each time the stamp of the frame on screen then: the last that began at or before it."""
    chosen = []
    for moment in wanted:
        stamp = (moment + index.origin) / index.time_base
        low, high = 0, len(times)
        while low < high:
            middle = (low + high) // 2
            low, high = (middle + 1, high) if times[middle] <= stamp else (low, middle)
        chosen.append(times[max(low - 1, 0)])
    return chosen
