"""The lists of AudioSet, AudioCaps and VGGSound: pieces of YouTube videos, known by content."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from video_prep.errors import UserError
from video_prep.sources.ontology import LabelNames
from video_prep.sources.rows import (
    check_bounds,
    comments,
    csv_cells,
    delimiter_of,
    first_row,
    is_comment,
    seconds,
)

_ID = re.compile(r"[A-Za-z0-9_-]+")
_VGG_NAME = re.compile(r"(.+)_(\d{6})(?:\.\w+)?")
_VGG_SPLITS = ("train", "test")
_LENGTH = 10.0  # seconds of every segment of AudioCaps and VGGSound
_AUDIOCAPS = ("youtube_id", "start_time", "caption")
_AUDIOSET = "YTID, start_seconds, end_seconds, positive_labels"


@dataclass(slots=True)
class Segment:
    """A piece of a YouTube video between `start` and `end` seconds (None: the whole video)."""

    youtube_id: str
    start: float | None
    end: float | None
    labels: tuple[str, ...]
    captions: tuple[str, ...]
    line: int  # of the list
    id: str = ""  # of the clip; empty: the YouTube id, with the start where two segments share it
    split: str | None = None  # train or test, where the list tells it row by row


Reader = Callable[[Path, LabelNames], Iterator[Segment]]


def reader_of(path: Path) -> Reader | None:
    """The reader for a list of one of the three data sets, by its content, or None."""
    if any(_is_audioset_header(line) for line in comments(path)):
        return audioset
    line = first_row(path)
    try:
        cells = next(csv.reader([line], delimiter=delimiter_of(line), skipinitialspace=True), [])
    except csv.Error:
        return None
    cells = [cell.strip() for cell in cells]
    if _is_audioset_header(line) or (
        len(cells) >= 4 and _is_time(cells[1]) and _is_time(cells[2]) and cells[3].startswith("/")
    ):
        return audioset
    if "audiocap_id" in cells or set(_AUDIOCAPS) <= set(cells):
        return audiocaps
    if cells == ["id", "label"] or (len(cells) == 2 and _VGG_NAME.fullmatch(cells[0])):
        return vggsound_names
    if len(cells) == 4 and _is_time(cells[1]) and cells[3] in _VGG_SPLITS:
        return vggsound
    return None


def _is_audioset_header(line: str) -> bool:
    words = [word.strip(' "') for word in line.lstrip("# ").split(",")]
    return words[0] == "YTID" and "positive_labels" in words


def _is_time(cell: str) -> bool:
    return re.fullmatch(r"\d+(\.\d+)?", cell) is not None


def audioset(path: Path, names: LabelNames) -> Iterator[Segment]:
    """Segments of AudioSet's balanced, unbalanced or evaluation list."""
    times: dict[str, float] = {}  # few are different, so that two million rows share them
    labels: dict[str, tuple[str, ...]] = {}
    for number, cells in csv_cells(path, after_comma=True):
        if is_comment(cells[0]) or cells[0] == "YTID":
            continue
        where = f"{path} line {number}"
        if len(cells) < 4:
            raise UserError(f"{where}: {len(cells)} cells, not the four of {_AUDIOSET}")
        start, end = (_time(where, times, cell) for cell in cells[1:3])
        check_bounds(where, start, end)
        text = ",".join(cells[3:])
        if text not in labels:
            labels[text] = names(_labels(where, text))
        yield Segment(check_youtube_id(where, cells[0]), start, end, labels[text], (), number)


def _labels(where: str, text: str) -> tuple[str, ...]:
    labels = _one_line(where, text).split(",")
    return tuple(label.strip() for label in labels if label.strip())


def _one_line(where: str, text: str) -> str:
    """The cell without blanks around it; a line end inside means that rows were swallowed."""
    if "\n" in text or "\r" in text:
        raise UserError(f"{where}: a quote is not closed before this line ({text[:40]!r})")
    return text.strip()


def audiocaps(path: Path, names: LabelNames) -> Iterator[Segment]:
    """Segments of AudioCaps (version 1 or 2); the captions of one clip come together."""
    rows = csv_cells(path)
    _, header = next(rows)
    columns = [cell.strip() for cell in header]
    for name in _AUDIOCAPS:
        if name not in columns:
            raise UserError(f"{path}: AudioCaps's column {name!r} is missing from {header}")
    video_at, start_at, caption_at = (columns.index(name) for name in _AUDIOCAPS)
    times: dict[str, float] = {}
    found: dict[tuple[str, float], Segment] = {}
    for number, cells in rows:
        where = f"{path} line {number}"
        if is_comment(cells[0]):
            continue
        if len(cells) != len(columns):
            raise UserError(
                f"{where}: {len(cells)} cells for {len(columns)} columns; put quotes around a "
                "caption with a comma"
            )
        video, start = (
            check_youtube_id(where, cells[video_at]),
            _time(where, times, cells[start_at]),
        )
        caption = _one_line(where, cells[caption_at])
        if not caption:
            raise UserError(f"{where}: the caption of {video} is empty")
        if (video, start) in found:
            found[video, start].captions += (caption,)
        else:
            found[video, start] = Segment(video, start, start + _LENGTH, (), (caption,), number)
    yield from found.values()


def vggsound(path: Path, names: LabelNames) -> Iterator[Segment]:
    """Segments of vggsound.csv: YouTube id, start, label, split; no header."""
    times: dict[str, float] = {}
    for number, cells in csv_cells(path, after_comma=True):
        where = f"{path} line {number}"
        if is_comment(cells[0]):
            continue
        if len(cells) != 4:
            raise UserError(
                f"{where}: {len(cells)} cells, not VGGSound's four (id, start, label, split); put "
                "quotes around a label with a comma"
            )
        video, split = check_youtube_id(where, cells[0]), cells[3].strip()
        if split not in _VGG_SPLITS:
            raise UserError(f"{where}: split {split!r} is not one of {', '.join(_VGG_SPLITS)}")
        start, labels = _time(where, times, cells[1]), names((cells[2].strip(),))
        yield _vgg_segment(video, start, labels, number, split)


def vggsound_names(path: Path, names: LabelNames) -> Iterator[Segment]:
    """Segments of VGGSound's lists of names such as ID_000030.mp4 or ID_000030, and a label."""
    begun = False
    for number, cells in csv_cells(path, after_comma=True):
        where = f"{path} line {number}"
        header = not begun and cells[0].strip() == "id"
        begun = True
        if header or is_comment(cells[0]):
            continue
        match = _VGG_NAME.fullmatch(cells[0].strip())
        if len(cells) != 2 or not match:
            raise UserError(
                f"{where}: not VGGSound's pair of a name such as ID_000030.mp4 and a label; put "
                "quotes around a label with a comma"
            )
        video = check_youtube_id(where, match[1])
        yield _vgg_segment(video, float(match[2]), names((cells[1].strip(),)), number)


def _vgg_segment(
    video: str, start: float, labels: tuple[str, ...], line: int, split: str | None = None
) -> Segment:
    name = f"{video}_{int(start):06d}"
    return Segment(video, start, start + _LENGTH, labels, (), line, name, split)


def check_youtube_id(where: str, value: Any) -> str:
    """The id without blanks around it; UserError where it can be none (a slash, a dot, nothing)."""
    name = value.strip() if isinstance(value, str) else ""
    if not _ID.fullmatch(name):
        raise UserError(
            f"{where}: {value!r} is not a YouTube id (letters, digits, - and _ only); mend the row"
        )
    return name


def _time(where: str, times: dict[str, float], cell: str) -> float:
    if cell not in times:
        number = seconds(where, "time", cell)
        if number is None:
            raise UserError(f"{where}: a time is empty; give start and end in seconds")
        times[cell] = number
    return times[cell]


def refuse_same(path: Path, first: dict[str, int], name: str, line: int) -> None:
    """Remember the line of a clip's id in `first`; UserError where it is there already."""
    if name in first:
        before = list(first).index(name) + 1  # a dict keeps the order of the clips
        raise UserError(
            f"{path}: clips {before} and {len(first) + 1} have the same id {name!r} (lines "
            f"{first[name]} and {line}); give each an id of its own"
        )
    first[name] = line
