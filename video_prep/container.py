"""Opens media files for decoding: local files only, and every way to fail has a short reason."""

from __future__ import annotations

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
