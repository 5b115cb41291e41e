"""One clip to frames and sound: exact packet index, no seeking, only the needed frames decoded.

PyAV (FFmpeg) reads the file once; the packet index says which frame is on screen at each wanted
time and which packets that frame needs. decord can deliver the pictures instead; where they are
not the frames of the index the clip is flagged `decoder_mismatch`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from video_prep.container import open_container
from video_prep.decord_frames import decord_pictures
from video_prep.errors import ClipError
from video_prep.frames import exact_pictures
from video_prep.packets import PacketIndex, at_or_before, end_time, target_times
from video_prep.picture import Picture, PictureMaker, picture_flags
from video_prep.recipe import Recipe
from video_prep.sound import (
    Sound,
    SoundTrack,
    fit,
    is_silent,
    load_sound,
    read_sound,
    resample,
    to_int16,
)

__all__ = ["DecodedClip", "decode_clip", "decode_sound", "read_sound", "resample"]

_WHOLE = 0.9  # a span below this share of what was promised is flagged


@dataclass
class DecodedClip:
    """Frames as JPEG bytes, sound as int16 (channels, samples), facts for the clip's JSON."""

    frames: list[bytes]
    wave: np.ndarray
    rate: int
    facts: dict[str, Any]
    flags: list[str] = field(default_factory=list)


def decode_clip(
    path: str | Path, start: float | None, end: float | None, recipe: Recipe
) -> DecodedClip:
    """Frames and sound of a clip between `start` and `end` seconds (None: the file's own ends).

    Raises ClipError with a short reason where the clip cannot be used; nothing is substituted.
    """
    path = Path(path)
    if recipe.num_frames == 0:
        return decode_sound(path, start, end, recipe)
    with open_container(path) as container:
        video, audio = _streams(container, path)
        index, track, whole = _read(container, video, audio, start, end)
        times = index.times()
        if not times:
            raise ClipError("no_frames", f"{path} has a video track without a decodable frame")
        first, last, flags = _bounds(index, times, start, end)
        sound = track.finish(path)
        if whole and _is_short(index, times, video, container):
            flags.append("truncated")
        wanted = target_times(first, last, recipe.num_frames, recipe.frame_policy)
        chosen = at_or_before(index, times, wanted)
        pictures, more = _pictures(path, video, index, chosen, recipe)
        flags += more + _repeats(chosen)
        facts = _video_facts(container, video, index, times)
    facts |= {"bounds": [_round(first), _round(last)]}
    facts |= {"frame_times": [_round(index.seconds(pts)) for pts in chosen]}
    facts |= {"frame_size": list(pictures[0].size)}
    flags += picture_flags(pictures)
    frames = [picture.jpeg(recipe.quality) for picture in pictures]
    return _with_sound(frames, sound, path, recipe, facts, flags)


def decode_sound(path: Path, start: float | None, end: float | None, recipe: Recipe) -> DecodedClip:
    """Sound alone, from an audio or video file."""
    sound = load_sound(path, start, end)
    flags = ["truncated"] if sound.truncated else []
    return _with_sound([], sound, path, recipe, {}, flags)


def _with_sound(
    frames: list[bytes],
    sound: Sound,
    path: Path,
    recipe: Recipe,
    facts: dict[str, Any],
    flags: list[str],
) -> DecodedClip:
    native = to_int16(sound.wave) if recipe.audio_rate == "native" else sound.wave
    wave, rate = fit(native, sound.rate, recipe.audio_rate, recipe.channel)
    wave = to_int16(wave)
    if wave.shape[1] == 0:
        raise ClipError("no_audio", f"{path} holds less sound than one sample at {rate} Hz")
    if is_silent(wave):
        flags.append("silent_audio")
    facts |= {"sample_rate": rate, "channels": wave.shape[0], "samples": wave.shape[1]}
    facts["sound"] = {
        "codec": sound.codec,
        "rate": sound.rate,
        "channels": sound.wave.shape[0],
        "bad_packets": sound.bad_packets,
    }
    return DecodedClip(frames, wave, rate, facts, flags)


# ---- reading -------------------------------------------------------------------------------


def _streams(container: Any, path: Path) -> tuple[Any, Any]:
    """The first video track that is not a cover picture, and the first sound track."""
    covers = av.stream.Disposition.attached_pic
    videos = [stream for stream in container.streams.video if not stream.disposition & covers]
    if not videos:
        raise ClipError("no_video_stream", f"{path} has no video track")
    if not container.streams.audio:
        raise ClipError("no_audio", f"{path} has no sound track")
    videos[0].codec_context.thread_count = 1  # a process a core is faster than threads
    return videos[0], container.streams.audio[0]


def _read(
    container: Any, video: Any, audio: Any, start: float | None, end: float | None
) -> tuple[PacketIndex, SoundTrack, bool]:
    """One pass over the file: index the pictures, decode the sound. True: the end was reached."""
    origin = max(Fraction(container.start_time or 0, av.time_base), Fraction(0))
    # the frame on screen at `start` may begin before it, so its keyframe does too
    index = PacketIndex(video.time_base, video.codec_context.name, origin, _exact(start))
    track = SoundTrack(audio, origin, start, end)
    past = False
    try:
        for packet in container.demux(video, audio):
            if packet.stream_index == audio.index:
                track.feed(packet)
            elif not past:
                index.add(packet)
                past = (
                    end is not None and packet.dts is not None and index.seconds(packet.dts) > end
                )
            if past and track.past_end:
                return index, track, False
    except av.FFmpegError:
        index.bad += 1
    # AVI stores no display times; where frames are reordered FFmpeg's guess is a constant shift
    index.guessed |= (
        container.format.name == "avi"
        and bool(video.codec_context.has_b_frames)
        and len(index.shifts) == 1
    )
    return index, track, True


def _exact(seconds: float | None) -> Fraction | None:
    """Seconds as typed: 0.1 becomes 1/10, so that frame boundaries are met exactly."""
    return None if seconds is None else Fraction(seconds).limit_denominator(1_000_000)


def _bounds(
    index: PacketIndex, times: list[int], start: float | None, end: float | None
) -> tuple[Fraction, Fraction, list[str]]:
    """The clip's bounds within the video, and the flag where the video covers less of them."""
    first, last = index.seconds(times[0]), index.seconds(end_time(index, times))
    low, high = _exact(start), _exact(end)
    begin = first if low is None else max(first, low)
    stop = last if high is None else min(last, high)
    if begin >= stop and (low is not None or high is not None):
        raise ClipError(
            "outside",
            f"the bounds {start} to {end} s lie outside the video, which has {float(last):.3f} s",
        )
    asked = (last if high is None else high) - (first if low is None else low)
    return begin, stop, ["short_video"] if stop - begin < asked * _WHOLE else []


def _is_short(index: PacketIndex, times: list[int], video: Any, container: Any) -> bool:
    """True where the packets cover less than the header promises: the file was cut off."""
    if video.duration:
        promised = video.duration * video.time_base
    else:
        promised = Fraction(container.duration or 0, av.time_base)
    seen = index.seconds(end_time(index, times)) - max(index.seconds(times[0]), Fraction(0))
    return bool(seen < promised * _WHOLE)


def _repeats(chosen: list[int]) -> list[str]:
    return ["duplicate_frames"] if len(set(chosen)) < len(chosen) else []


# ---- pictures ------------------------------------------------------------------------------


def _pictures(
    path: Path, video: Any, index: PacketIndex, chosen: list[int], recipe: Recipe
) -> tuple[list[Picture], list[str]]:
    """The pictures of the time stamps `chosen`, with flags about how they came."""
    maker = PictureMaker(video.sample_aspect_ratio, recipe.short_side)
    pictures, flags = exact_pictures(path, video.codec_context, index, chosen, maker)
    if recipe.decoder == "decord":
        pictures, more = decord_pictures(path, index, chosen, maker, pictures)
        flags += more
    return pictures, flags


def _video_facts(
    container: Any, video: Any, index: PacketIndex, times: list[int]
) -> dict[str, Any]:
    codec = video.codec_context
    rate = video.average_rate
    facts = {
        "container": container.format.name,
        "codec": codec.name,
        "width": codec.width,
        "height": codec.height,
        "fps": None if not rate else _round(rate),
        "frames": len(times),
        "seconds": _round(index.seconds(end_time(index, times)) - index.seconds(times[0])),
        "bad_packets": index.bad,
    }
    return {"video": facts}


def _round(seconds: Fraction) -> float:
    return round(float(seconds), 6)
