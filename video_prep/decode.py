"""One clip to frames and sound: exact packet index, no seeking, only the needed frames decoded.

PyAV (FFmpeg) reads the file once; the packet index says which frame is on screen at each wanted
time and which packets that frame needs. decord or torchcodec can deliver the pictures instead;
where they are not the frames of the index the clip is flagged `decoder_mismatch`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from video_prep.decoding.container import open_container
from video_prep.decoding.decord_frames import decord_pictures
from video_prep.decoding.frames import exact_pictures
from video_prep.decoding.packets import end_time
from video_prep.decoding.picture import Picture, PictureMaker, mismatch, picture_flags
from video_prep.decoding.reading import Reading, read_file
from video_prep.decoding.sound import load_sound, read_sound, resample
from video_prep.decoding.sound_copy import CopiedSound, CopyTrack, copy_sound
from video_prep.decoding.sound_track import Sound, SoundTrack
from video_prep.decoding.targets import at_or_before, snapped, target_times
from video_prep.decoding.torchcodec_frames import torchcodec_pictures
from video_prep.decoding.waves import is_silent
from video_prep.errors import ClipError
from video_prep.recipe import Recipe

__all__ = ["DecodedClip", "decode_clip", "decode_sound", "read_sound", "resample"]

_OTHERS = {"decord": decord_pictures, "torchcodec": torchcodec_pictures}


@dataclass
class DecodedClip:
    """Frames as JPEG bytes, sound as int16 (channels, samples), facts for the clip's JSON.

    `wave` is None where the clip has no usable sound (flag `no_audio`, rate 0) and where its
    sound is `copied`: the source's own packets as a Matroska file.
    """

    frames: list[bytes]
    wave: np.ndarray | None
    rate: int
    facts: dict[str, Any]
    flags: list[str] = field(default_factory=list)
    copied: bytes | None = None


def decode_clip(
    path: str | Path, start: float | None, end: float | None, recipe: Recipe
) -> DecodedClip:
    """Frames and sound of a clip between `start` and `end` seconds (None: the file's own ends).

    Raises ClipError with a short reason where the clip cannot be used; nothing is substituted.
    A video without a usable sound is one with the flag `no_audio`.
    """
    path = Path(path)
    if recipe.num_frames == 0:
        return decode_sound(path, start, end, recipe)
    with open_container(path) as container:
        reading = read_file(container, path, start, end, recipe)
        index = reading.index
        times = index.times()
        if not times:
            raise ClipError("no_frames", f"{path} has a video track without a decodable frame")
        first, last, flags = reading.bounds(times)
        if reading.is_cut_off(times):
            flags.append("truncated")
        wanted = target_times(first, last, recipe.num_frames, recipe.frame_policy)
        chosen = snapped(index, at_or_before(index, times, wanted), recipe.snap_seconds)
        pictures, more = _pictures(path, reading, chosen, recipe)
        flags += more
        facts = _video_facts(reading, times, pictures[0])
    facts |= {"bounds": [_round(first), _round(last)]}
    facts |= {"frame_times": [_round(index.seconds(pts)) for pts in chosen]}
    if recipe.frame_policy == "endpoints":  # no frame is on screen at the very end of a video
        end_of_video = index.seconds(end_time(index, times))
        facts["clamped"] = [i for i, moment in enumerate(wanted) if moment >= end_of_video]
    facts |= {"frame_size": list(pictures[0].size)}
    flags += ["duplicate_frames"] if len(set(chosen)) < len(chosen) else []
    flags += picture_flags(pictures)
    frames = [picture.jpeg(recipe.quality) for picture in pictures]
    return _with_sound(DecodedClip(frames, None, 0, facts, flags), reading.track, path)


def decode_sound(path: Path, start: float | None, end: float | None, recipe: Recipe) -> DecodedClip:
    """Sound alone, from an audio or video file; without a usable one ClipError `no_audio`."""
    clip = DecodedClip([], None, 0, {})
    if recipe.sound == "copy":
        return _add_sound(clip, copy_sound(path, start, end))
    sound = load_sound(
        path, start, end, channel=recipe.channel, sample_rate=recipe.audio_rate, short=True
    )
    return _add_sound(clip, sound)


def _with_sound(clip: DecodedClip, track: SoundTrack | CopyTrack | None, path: Path) -> DecodedClip:
    """The clip with the sound of its video, or with the flag `no_audio`."""
    try:
        if track is not None:
            return _add_sound(clip, track.finish(path))
    except ClipError as error:
        if error.reason != "no_audio":
            raise
    clip.flags.append("no_audio")
    clip.facts |= {"sample_rate": None, "channels": 0, "samples": 0, "sound": None}
    if track is not None:
        clip.facts["sound"] = {"codec": track.codec, "bad_packets": track.bad_packets}
        clip.flags += ["corrupt_audio"] if track.bad_packets else []
    return clip


def _add_sound(clip: DecodedClip, sound: Sound | CopiedSound) -> DecodedClip:
    if isinstance(sound, CopiedSound):
        clip.copied, clip.rate = sound.data, sound.rate
    else:
        clip.wave, clip.rate = sound.wave, sound.rate
    clip.facts |= sound.facts()
    clip.flags += ["truncated"] if sound.truncated and "truncated" not in clip.flags else []
    clip.flags += ["corrupt_audio"] if sound.bad_packets else []
    clip.flags += ["silent_audio"] if clip.wave is not None and is_silent(clip.wave) else []
    return clip


def _pictures(
    path: Path, reading: Reading, chosen: list[int], recipe: Recipe
) -> tuple[list[Picture], list[str]]:
    """The pictures of the time stamps `chosen`, with flags about how they came."""
    video, index = reading.video, reading.index
    maker = PictureMaker(video.sample_aspect_ratio, recipe.short_side)
    pictures, flags = exact_pictures(path, video, index, chosen, maker)
    if recipe.decoder in _OTHERS:
        others = _OTHERS[recipe.decoder](path, index, chosen, maker, pictures)
        flags += mismatch(others, pictures)
        pictures = others
    return pictures, flags


def _video_facts(reading: Reading, times: list[int], picture: Picture) -> dict[str, Any]:
    index, codec = reading.index, reading.video.codec_context
    rate = reading.video.average_rate
    facts = {
        "container": reading.container.format.name,
        "codec": codec.name,
        "width": codec.width,
        "height": codec.height,
        "rotation": picture.rotation,
        "fps": None if not rate else _round(rate),
        "start": _round(index.origin + index.seconds(times[0])),
        "frames": len(times),
        "seconds": _round(index.seconds(end_time(index, times)) - index.seconds(times[0])),
        "bad_packets": index.bad,
    }
    return {"video": facts}


def _round(seconds: Fraction) -> float:
    return round(float(seconds), 6)
