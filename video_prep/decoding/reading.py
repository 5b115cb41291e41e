"""One pass over a video file: its pictures are indexed, its sound is taken as it goes by."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av

from video_prep.decoding.container import exact, origin_of, packets_of, sound_stream
from video_prep.decoding.packets import PacketIndex, end_time
from video_prep.decoding.sound_copy import CopyTrack
from video_prep.decoding.sound_track import SoundTrack
from video_prep.errors import ClipError
from video_prep.recipe import Recipe

_WHOLE = 0.9  # a span below this share of what was promised is flagged


@dataclass
class Reading:
    """What one pass found: the index of the pictures, the sound track (None: the file has none)."""

    container: Any
    video: Any
    index: PacketIndex
    track: SoundTrack | CopyTrack | None
    start: Fraction | None
    end: Fraction | None
    ended: bool = True  # the pass went to the end of the file
    sound_end: Fraction = Fraction(0)  # seconds at which the last packet of sound ends

    def bounds(self, times: list[int]) -> tuple[Fraction, Fraction, list[str]]:
        """The clip's bounds within the video, and the flag where the video covers less of them."""
        first, last = self.index.seconds(times[0]), self.index.seconds(end_time(self.index, times))
        begin = first if self.start is None else max(first, self.start)
        stop = last if self.end is None else min(last, self.end)
        if begin >= stop and (self.start is not None or self.end is not None):
            low, high = float(self.start or 0), None if self.end is None else float(self.end)
            raise ClipError(
                "outside",
                f"the bounds {low} to {high} s lie outside the video, which has "
                f"{float(last):.3f} s",
            )
        asked = (last if self.end is None else self.end) - (
            first if self.start is None else self.start
        )
        return begin, stop, ["short_video"] if stop - begin < asked * _WHOLE else []

    def is_cut_off(self, times: list[int]) -> bool:
        """True where the packets cover less than the header promises."""
        if not self.ended:
            return False
        last = self.index.seconds(end_time(self.index, times))
        if self.video.duration:
            promised = self.video.duration * self.video.time_base
            return bool(last - max(self.index.seconds(times[0]), Fraction(0)) < promised * _WHOLE)
        # the duration of a whole file: of its longest track, and in Matroska it counts from 0
        last = max(last, self.sound_end)
        if "matroska" in self.container.format.name:
            last += self.index.origin
        return bool(last < Fraction(self.container.duration or 0, av.time_base) * _WHOLE)


def read_file(
    container: Any, path: Path, start: float | None, end: float | None, recipe: Recipe
) -> Reading:
    """Read an open container from its beginning until both tracks have passed `end` seconds.

    Raises ClipError `no_video_stream`.
    """
    video, audio = _streams(container, path)
    origin = origin_of(container)
    # the frame on screen at `start` may begin before it, so its keyframe does too
    index = PacketIndex(video.time_base, video.codec_context.name, origin, exact(start))
    track = None if audio is None else _track(audio, origin, start, end, recipe)
    reading = Reading(container, video, index, track, exact(start), exact(end))
    try:
        reading.ended = _demux(reading, audio)
    except av.FFmpegError:
        index.bad += 1
    # AVI stores no display times; where frames are reordered FFmpeg's guess is a constant shift
    reordered = container.format.name == "avi" and video.codec_context.has_b_frames
    if reordered and len(index.shifts) == 1:
        index.guessed = True
        index.origin += min(index.shifts) * index.time_base
    return reading


def _demux(reading: Reading, audio: Any) -> bool:
    """Take all packets that the clip needs; True where the file's end was reached."""
    index, track, end = reading.index, reading.track, reading.end
    past = False
    last: Any = None
    for packet in packets_of(reading.container, *filter(None, (reading.video, audio))):
        if track is not None and packet.stream_index == audio.index:
            track.feed(packet)
            last = packet if packet.pts is not None else last
        elif not past:
            index.add(packet)
            past = end is not None and packet.dts is not None and index.seconds(packet.dts) > end
        if past and (track is None or track.past_end):
            return False
    if last is not None:
        ends = last.pts + (last.duration or 0)
        reading.sound_end = ends * last.time_base - index.origin
    return True


def _streams(container: Any, path: Path) -> tuple[Any, Any]:
    """The first video track that is not a cover picture, and the first sound track or None."""
    covers = av.stream.Disposition.attached_pic
    videos = [stream for stream in container.streams.video if not stream.disposition & covers]
    videos = [stream for stream in videos if stream.codec_context is not None]
    if not videos:
        raise ClipError("no_video_stream", f"{path} has no video track of a known codec")
    videos[0].codec_context.thread_count = 1  # a process a core is faster than threads
    return videos[0], sound_stream(container)


def _track(
    audio: Any, origin: Fraction, start: float | None, end: float | None, recipe: Recipe
) -> SoundTrack | CopyTrack:
    if recipe.sound == "copy":
        return CopyTrack(audio, origin, start, end)
    return SoundTrack(
        audio,
        origin,
        start,
        end,
        channel=recipe.channel,
        sample_rate=recipe.audio_rate,
        short=True,
    )
