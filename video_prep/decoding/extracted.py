"""A clip that audioset-dl has cut before: its JPEG frames and its mp3, taken as they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av
import simplejpeg

from video_prep.decode import DecodedClip, decode_sound
from video_prep.decoding.picture import Picture, PictureMaker, picture_flags
from video_prep.errors import ClipError
from video_prep.recipe import Recipe
from video_prep.sources.audioset_dl import FRAME_NAME

_NO_SOUND = {"missing_file", "empty_file", "not_media", "no_audio"}
_WHOLE = 0.9  # sound below this share of the segment: the video ended before the segment did


def read_extracted(
    frames: list[str], sound: str, start: float | None, end: float | None, recipe: Recipe
) -> DecodedClip:
    """Frames and sound from files; `start` and `end` are the segment's seconds in its video.

    A frame keeps its bytes unless its shorter side is above `recipe.short_side`; then it is scaled
    and encoded anew (fact `frames_are`: kept or scaled). The times of the frames are those that
    audioset-dl asks for, start + k (end - start) / (n - 1), where the segment is known. Without a
    usable sound the clip has the flag `no_audio`, and the fact `sound_error` says why.

    Raises ClipError: `missing_frames` or `extra_frames` where there are not `recipe.num_frames`,
    `frame_undecodable` for a broken or cut-off JPEG; no frame is replaced by another.
    """
    if recipe.num_frames == 0:
        return decode_sound(Path(sound), None, None, recipe)
    files = _present([Path(frame) for frame in frames], recipe.num_frames)
    data = [_bytes(file) for file in files]
    maker = PictureMaker(None, recipe.short_side)
    whole = [_decoded(file, jpeg) for file, jpeg in zip(files, data, strict=True)]
    pictures = [maker.make(frame) for frame in whole]
    kept = [
        picture.size == (frame.width, frame.height)
        for picture, frame in zip(pictures, whole, strict=True)
    ]
    jpegs = [
        jpeg if keep else picture.jpeg(recipe.quality)
        for jpeg, keep, picture in zip(data, kept, pictures, strict=True)
    ]
    facts = _facts(files, pictures, start, end) | {"frames_are": "kept" if all(kept) else "scaled"}
    flags = ["duplicate_frames"] if len(set(data)) < len(data) else []
    clip = DecodedClip(jpegs, None, 0, facts, flags + picture_flags(pictures))
    return _with_sound(clip, Path(sound), start, end, recipe)


def _present(frames: list[Path], wanted: int) -> list[Path]:
    """The frames that are there; audioset-dl reports success where the last one is not."""
    present = [frame for frame in frames if frame.is_file()]
    places = [_place(frame, k, frames) for k, frame in enumerate(frames)]
    total = max(len(frames), *(total for _, total in places))
    if len(present) < wanted:
        there = {_place(frame, k, frames)[0] for k, frame in enumerate(present)}
        missing = ", ".join(str(k + 1) for k in range(total) if k not in there)
        raise ClipError(
            "missing_frames",
            f"{len(present)} of {total} frames are there (not {missing or 'more'}), "
            f"--num-frames is {wanted}",
        )
    if len(present) > wanted:
        raise ClipError(
            "extra_frames", f"{len(present)} frames were cut before, --num-frames is {wanted}"
        )
    return present


def _place(frame: Path, position: int, frames: list[Path]) -> tuple[int, int]:
    """Number of a frame from 0 on, and how many there were to be, by its name."""
    match = FRAME_NAME.fullmatch(frame.name)
    return (int(match[3]) - 1, int(match[2])) if match else (position, len(frames))


def _bytes(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise ClipError("unreadable", f"{file.name} cannot be read: {error.strerror}") from None


def _decoded(file: Path, jpeg: bytes) -> Any:
    """The whole picture as a frame of FFmpeg; a JPEG that was cut off is an error, not half."""
    try:
        pixels = simplejpeg.decode_jpeg(jpeg, "RGB", strict=True)
    except ValueError as error:
        raise ClipError("frame_undecodable", f"{file.name} is no whole JPEG: {error}") from None
    return av.VideoFrame.from_ndarray(pixels, "rgb24")


def _facts(
    files: list[Path], pictures: list[Picture], start: float | None, end: float | None
) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "frame_files": [file.name for file in files],
        "frame_size": list(pictures[0].size),
        "bounds": None,
        "frame_times": None,
    }
    if start is not None and end is not None:
        places = [_place(file, k, files) for k, file in enumerate(files)]
        facts["bounds"] = [start, end]
        facts["frame_times"] = [
            round(start + k * (end - start) / max(total - 1, 1), 6) for k, total in places
        ]
    return facts


def _with_sound(
    clip: DecodedClip, sound: Path, start: float | None, end: float | None, recipe: Recipe
) -> DecodedClip:
    try:
        heard = decode_sound(sound, None, None, recipe)
    except ClipError as error:
        if error.reason not in _NO_SOUND:
            raise
        clip.flags.append("no_audio")
        clip.facts |= {"sample_rate": None, "channels": 0, "samples": 0, "sound": None}
        clip.facts["sound_error"] = f"{error.reason}: {str(error).replace(str(sound), sound.name)}"
        return clip
    clip.wave, clip.rate, clip.copied = heard.wave, heard.rate, heard.copied
    clip.facts |= heard.facts
    clip.flags += heard.flags
    if start is not None and end is not None and heard.wave is not None:
        short = heard.wave.shape[1] < _WHOLE * (end - start) * heard.rate
        clip.flags += ["short_video"] if short else []
    return clip
