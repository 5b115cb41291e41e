"""One input clip, and the suffixes of the files that count as videos and as sounds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

_VIDEO = (
    "3g2 3gp asf avi divx f4v flv m2ts m2v m4v mkv mov mp4 mpeg mpg mts mxf ogv ts vob webm wmv"
)
_AUDIO = "aac ac3 aif aiff amr au caf flac m4a m4b mka mp2 mp3 oga ogg opus wav weba wma"
VIDEO = frozenset(f".{suffix}" for suffix in _VIDEO.split(" "))
AUDIO = frozenset(f".{suffix}" for suffix in _AUDIO.split(" "))


@dataclass(frozen=True, slots=True)  # slots: lists of two million are held in memory
class Clip:
    """One input: a media file, or the piece of it between `start` and `end` seconds."""

    id: str
    path: Path
    start: float | None = None
    end: float | None = None
    labels: tuple[str, ...] = ()
    captions: tuple[str, ...] = ()
    source: str = ""  # the path as recorded: relative to the folder or list it came from
    frames: tuple[Path, ...] = ()  # pictures that somebody cut before; then `path` is the sound
    fault: tuple[str, str] | None = None  # reason and text where no file can be this clip's
    fold: int | None = None  # of cross-validation, where the data set has folds
    split: str | None = None  # train, val or test, where the list tells it clip by clip
    # ids of the recording it is cut from, where the list tells them and the clip's id does not
    freesound: str | None = None
    youtube: str | None = None
