"""Reads what audioset-dl has cut, and vipant's index of it: frames as JPEG, sound as mp3.

Files are called ID.p0.4_01.jpg (released index) or ID.p0.4.4_01.jpg (the downloader itself), in
`frame/`, and ID.p0.mp3, in `aclip/` or `audio/`; p0 is the segment, n0 and n1 are its surroundings
and are not read. The index is called .csv, yet each line is a JSON object.
"""

from __future__ import annotations

import os
import re
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from video_prep.errors import UserError
from video_prep.sources.clip import Clip
from video_prep.sources.faults import MISSING, report, two_files
from video_prep.sources.ontology import LabelNames
from video_prep.sources.rows import check_bounds, first_row, json_rows, seconds
from video_prep.sources.segments import check_youtube_id, refuse_same

FRAME_NAME = re.compile(r"(.+)\.p0\.(?:\d+\.)?(\d+)_(\d+)\.jpg")  # id, frames in all, number
_NAME = re.compile(r"p0\.(?:(?:\d+\.)?\d+_\d+\.jpg|\w+)")  # of a frame or a sound, after the id
_CHUNK = re.compile(r".+_\d+_\d+")  # a folder of the downloader: all_0_35000
_SOUND_FOLDERS = ("aclip", "audio", "clip")
_SOUND = "p0.mp3"
_FRAMES = 4  # that audioset-dl cuts
_COLUMNS = ("id", "frame", "bos", "eos")


# ---- the folder ----------------------------------------------------------------------------


class _Chunk:
    """One folder of cut clips: names in its `frame` folder and in its folders of sound."""

    def __init__(self, root: Path, name: str) -> None:
        self._pictures = root / name / "frame"
        self.frames = frozenset(_listed(self._pictures))
        self._folders = [root / name / folder for folder in _SOUND_FOLDERS]
        self._sounds = {
            sound: folder for folder in reversed(self._folders) for sound in _listed(folder)
        }
        self._prefix = "" if name == "." else f"{PurePosixPath(name)}/"

    def ids(self) -> dict[str, list[str]]:
        """Id -> its frames in order; an id of which only the sound is there has none."""
        found: dict[str, list[tuple[int, str]]] = defaultdict(list)
        for name in self.frames:
            match = FRAME_NAME.fullmatch(name)
            if match:
                found[match[1]].append((int(match[3]), name))
        for name in self._sounds:
            if name.endswith(f".{_SOUND}"):
                found.setdefault(name.removesuffix(f".{_SOUND}"), [])
        return {clip_id: [name for _, name in sorted(found[clip_id])] for clip_id in sorted(found)}

    def clip(self, clip_id: str, frames: list[str], sound: str = _SOUND) -> Clip:
        """The clip of these frames (those that audioset-dl would have cut where there are none)."""
        sound = f"{clip_id}.{sound}"
        folder = self._sounds.get(sound, self._folders[0])
        names = frames or [f"{clip_id}.p0.{_FRAMES}_{k + 1:02}.jpg" for k in range(_FRAMES)]
        source = f"{self._prefix}{folder.name}/{sound}"
        fault = None
        if sound not in self._sounds and not self.frames.intersection(names):
            fault = MISSING, f"neither {source} nor a frame of it is there"
        return Clip(
            id=clip_id,
            path=folder / sound,
            source=source,
            frames=tuple(self._pictures / name for name in names),
            fault=fault,
        )

    def frame(self, name: str) -> str:
        """The name as it is in the folder: the index says p0.4_01, the downloader p0.4.4_01."""
        if name in self.frames:
            return name
        other = re.sub(r"\.p0\.(\d+)_", rf".p0.{_FRAMES}.\1_", name)
        return other if other in self.frames else name


def _listed(folder: Path) -> list[str]:
    try:
        return [entry.name for entry in os.scandir(folder)]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise UserError(f"{folder} cannot be listed: {error.strerror}") from None


def _chunks(root: Path) -> list[str]:
    """Names of the folders that hold a folder of frames: the root itself, or those in it."""
    if (root / "frame").is_dir():
        return ["."]
    names = (entry.name for entry in os.scandir(root) if _CHUNK.fullmatch(entry.name))
    return sorted(name for name in names if (root / name / "frame").is_dir())


def is_extracted(root: Path) -> bool:
    """True for a folder of audioset-dl: a frame in it has the name that the downloader gives."""
    return any(
        FRAME_NAME.fullmatch(name)
        for chunk in _chunks(root)
        for name in _listed(root / chunk / "frame")
    )


def clips_of_folder(root: Path) -> list[Clip]:
    """Clips of a folder that audioset-dl made, in order of their ids, without labels or bounds."""
    clips: dict[str, Clip] = {}
    root = root.absolute()
    for name in _chunks(root):
        chunk = _Chunk(root, name)
        for clip_id, frames in chunk.ids().items():
            clip = chunk.clip(clip_id, frames)
            before = clips.get(clip_id)
            if before is not None:
                fault = two_files(clip_id, (before.source, clip.source))
                clip = replace(before, fault=before.fault or fault)
            clips[clip_id] = clip
    _say(root)
    return [clips[clip_id] for clip_id in sorted(clips)]


def _say(root: Path) -> None:
    print(
        f"{root}: frames that audioset-dl has cut (both ends of the segment included) are taken "
        "as they are",
        file=sys.stderr,
    )


# ---- the index -----------------------------------------------------------------------------


@dataclass(slots=True)
class _Row:
    """A line of the index."""

    line: int
    id: str
    folder: str
    frames: tuple[str, ...]
    sound: str
    start: float | None
    end: float | None
    labels: tuple[str, ...]
    captions: tuple[str, ...]


def is_index(path: Path) -> bool:
    """True for an index in JSON lines, whatever it is called; its first row decides."""
    if not first_row(path).lstrip().startswith("{"):
        return False
    _, row = next(json_rows(path))
    return "path" not in row and bool({"frame", "aclip"} & set(row))


def clips_of_index(path: Path, root: Path, names: LabelNames) -> list[Clip]:
    """Clips of the index `path` in its order; their folders lie in `root`.

    Every folder is listed once; no file is touched. Raises UserError for a wrong row, and where
    not one clip has a file.
    """
    rows = list(_rows(path, names))
    if not rows:
        raise UserError(f"{path} lists no clips")
    if not root.is_dir():
        raise UserError(f"--media {root} is not a folder; give the one that holds {rows[0].folder}")
    root = root.absolute()
    places: dict[str, list[int]] = defaultdict(list)
    for place, row in enumerate(rows):
        places[row.folder].append(place)
    clips: dict[int, Clip] = {}
    for folder, numbers in places.items():
        chunk = _Chunk(root, folder)
        for number in numbers:
            clips[number] = _clip(chunk, rows[number])
    ordered = [clips[number] for number in range(len(rows))]
    wanted = ordered[0].source
    report(path, ordered, root, lambda: f"looked for {wanted}; --media names the folder above it")
    _say(path)
    return ordered


def _clip(chunk: _Chunk, row: _Row) -> Clip:
    frames = [chunk.frame(f"{row.id}.{name}") for name in row.frames]
    return replace(
        chunk.clip(row.id, frames, row.sound),
        start=row.start,
        end=row.end,
        labels=row.labels,
        captions=row.captions,
    )


def _rows(path: Path, names: LabelNames) -> Iterator[_Row]:
    first: dict[str, int] = {}
    for line, row in json_rows(path):
        where = f"{path} line {line}"
        for key in _COLUMNS:
            if key not in row:
                raise UserError(f"{where}: {key!r} is missing, which audioset-dl's index has")
        start, end = (seconds(where, key, row[key]) for key in ("bos", "eos"))
        check_bounds(where, start, end)
        clip_id = check_youtube_id(where, row["id"])
        refuse_same(path, first, clip_id, line)
        sounds = _texts(where, "aclip", row.get("aclip", []))
        yield _Row(
            line,
            clip_id,
            _folder(where, row.get("dir", ".")),
            tuple(_name(where, name) for name in _texts(where, "frame", row["frame"])),
            _name(where, sounds[0]) if sounds else _SOUND,
            start,
            end,
            names(_texts(where, "labels", row.get("labels", []))),
            _texts(where, "captions", row.get("captions", [])),
        )


def _texts(where: str, key: str, value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise UserError(f"{where}: {key} {value!r} is not a list of texts")
    return tuple(value)


def _folder(where: str, value: Any) -> str:
    if not isinstance(value, str) or value.startswith("/") or ".." in value.split("/"):
        raise UserError(f"{where}: dir {value!r} is not a folder below the index")
    return value or "."


def _name(where: str, name: str) -> str:
    if not _NAME.fullmatch(name):
        raise UserError(f"{where}: {name!r} is not a name such as p0.4_01.jpg or {_SOUND}")
    return sys.intern(name)  # the same few in every row
