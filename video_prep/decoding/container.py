"""Opens media files for decoding: local files only, and every way to fail has a short reason."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av

from video_prep.errors import ClipError

# pictures, texts and playlists that FFmpeg would open as if they were a video
_NOT_MEDIA = {"image2", "tty", "hls", "dash", "concat", "ffmetadata", "sdp", "rtsp", "imf", "bin"}
av.logging.set_level(None)  # damage is reported by our own rows, not by FFmpeg on stderr


def check_file(path: Path) -> None:
    """Raise ClipError where `path` is not a readable file with something in it."""
    try:
        if path.is_dir():
            raise ClipError("not_a_file", f"{path} is a folder, not a media file")
        if path.stat().st_size == 0:
            raise ClipError("empty_file", f"{path} is empty (0 bytes)")
        with path.open("rb"):
            pass
    except FileNotFoundError:
        raise ClipError("missing_file", f"{path} does not exist") from None
    except OSError as error:
        raise ClipError("unreadable", f"{path} cannot be read: {error.strerror or error}") from None


def open_container(path: Path) -> Any:
    """Open a media file with FFmpeg (PyAV), restricted to that local file; raises ClipError."""
    check_file(path)
    try:
        # `file:` keeps names such as `concat:x` from being taken as a protocol
        container = av.open(
            f"file:{path.absolute()}",
            options={"protocol_whitelist": "file"},
            metadata_errors="replace",
        )
    except MemoryError:
        raise
    except (av.FFmpegError, OSError, ValueError) as error:
        detail = getattr(error, "strerror", None) or error
        raise ClipError("not_media", f"{path} is not a readable media file: {detail}") from None
    names = set(container.format.name.split(","))
    if names & _NOT_MEDIA or any(name.endswith("_pipe") for name in names):
        container.close()
        raise ClipError(
            "not_media", f"{path} is {container.format.long_name}, not a video or sound"
        )
    return container


def origin_of(container: Any) -> Fraction:
    """The time stamp, in seconds, at which a file begins; times of clips count from it."""
    return max(Fraction(container.start_time or 0, av.time_base), Fraction(0))


def exact(seconds: float | None) -> Fraction | None:
    """Seconds as typed: 0.1 becomes 1/10, so that frame boundaries are met exactly."""
    return None if seconds is None else Fraction(seconds).limit_denominator(1_000_000)


def sound_stream(container: Any) -> Any:
    """The first sound track whose codec is known, or None."""
    known = (stream for stream in container.streams.audio if stream.codec_context is not None)
    return next(known, None)


def packets_of(container: Any, *streams: Any) -> Iterator[Any]:
    """Packets of `streams` in the file's order, then the empty ones that flush; av.FFmpegError."""
    packets = container.demux(*streams)
    while True:
        try:
            packet = next(packets)
        except StopIteration:
            return
        except IndexError:
            # PyAV knows no track that a transport stream adds later: go on after its packet
            packets = container.demux(*streams)
        else:
            yield packet


def collect_sound(path: Path, track_of: Callable[[Any, Fraction], Any]) -> Any:
    """The sound that a track (SoundTrack, CopyTrack) makes of one pass over a file.

    `track_of` makes the track from the stream and the file's origin. Raises ClipError `no_audio`.
    """
    with open_container(path) as container:
        stream = sound_stream(container)
        if stream is None:
            raise ClipError("no_audio", f"{path} has no sound track of a known codec")
        track = track_of(stream, origin_of(container))
        broken = False
        try:
            for packet in packets_of(container, stream):
                track.feed(packet)
                if track.past_end:
                    break
        except av.FFmpegError:
            broken = True
        sound = track.finish(path)
        sound.truncated = broken
        return sound
