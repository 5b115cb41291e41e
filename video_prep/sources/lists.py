"""A user's own list: rows with a path or a YouTube id, and labels, captions, start and end."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from video_prep.errors import UserError
from video_prep.sources.clip import Clip
from video_prep.sources.ontology import LabelNames
from video_prep.sources.recordings import freesound_id, youtube_id
from video_prep.sources.rows import check_bounds, csv_cells, first_row, json_rows, seconds
from video_prep.sources.segments import Segment, check_youtube_id, refuse_same

_JSON = {".jsonl", ".ndjson", ".json"}
_COLUMNS = ("id", "start", "end", "labels", "captions")


def clips_of_paths(path: Path, names: LabelNames) -> list[Clip]:
    """Clips of a list with the column `path`, relative to the list."""
    clips: list[Clip] = []
    first: dict[str, int] = {}
    for number, row in _rows(path, "path"):
        where = f"{path} line {number}"
        name = row.get("path")
        if not isinstance(name, str) or not name.strip() or "\0" in name:
            raise UserError(f"{where}: the path is empty; give the media file of this clip")
        name = name.strip()
        if not PurePosixPath(Path(name).as_posix()).name:
            raise UserError(f"{where}: the path {name!r} names no file")
        start, end = _bounds(where, row)
        clip = Clip(
            id=_id_of(row) or str(PurePosixPath(Path(name).as_posix()).with_suffix("")),
            path=(path.parent / name).absolute(),
            start=start,
            end=end,
            labels=names(_texts(where, "labels", row.get("labels"))),
            captions=_texts(where, "captions", row.get("captions")),
            source=name,
            freesound=_recording(where, row, ("freesound_id", "freesound")),
            youtube=_recording(where, row, ("youtube_id", "youtube")),
        )
        refuse_same(path, first, clip.id, number)
        clips.append(clip)
    return clips


def segments_of_ids(path: Path, names: LabelNames) -> Iterator[Segment]:
    """Segments of a list with the column `youtube_id`; without start and end the whole video."""
    for number, row in _rows(path, "youtube_id"):
        where = f"{path} line {number}"
        start, end = _bounds(where, row)
        yield Segment(
            check_youtube_id(where, row.get("youtube_id")),
            start,
            end,
            names(_texts(where, "labels", row.get("labels"))),
            _texts(where, "captions", row.get("captions")),
            number,
            _id_of(row),
        )


def _rows(path: Path, needed: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Rows as (line number, column -> value); UserError where the column `needed` is not there."""
    if path.suffix.lower() in _JSON or first_row(path).lstrip()[:1] in {"{", "["}:
        checked = set()
        for number, row in json_rows(path):
            if tuple(row) not in checked:
                _check_columns(f"{path} line {number}", list(row), needed)
                checked.add(tuple(row))
            yield number, row
        return
    header: list[str] | None = None
    for number, cells in csv_cells(path):
        if header is None:
            header = [cell.strip() for cell in cells]
            _check_columns(str(path), header, needed)
        elif len(cells) > len(header):
            raise UserError(
                f"{path} line {number}: {len(cells)} cells for {len(header)} columns; "
                "put quotes around a cell with a comma"
            )
        else:
            yield number, dict(zip(header, cells, strict=False))


def _check_columns(where: str, names: list[str], needed: str) -> None:
    """Refuse a list without the column `needed`, with one twice, or with a misspelt one."""
    for name, times in Counter(names).items():
        if times > 1:
            raise UserError(f"{where}: column {name!r} appears {times} times; keep one")
    if needed == "path" and "path" not in names and "youtube_id" in names:
        raise UserError(
            f"{where}: the clips are named by YouTube id; add --media with the folder that holds "
            "their files"
        )
    if needed == "youtube_id" and needed not in names and "path" in names:
        raise UserError(
            f"{where}: the clips have paths of their own; leave out --media, or name them in a "
            "column 'youtube_id'"
        )
    for known in (needed, *_COLUMNS):
        near = difflib.get_close_matches(known, set(names) - {needed, *_COLUMNS}, 1, 0.8)
        if known not in names and near:
            raise UserError(f"{where}: column {near[0]!r} is unknown; perhaps you meant {known!r}")
    if needed not in names:
        raise UserError(
            f"{where}: there is no column {needed!r} (found: "
            f"{', '.join(map(str, names)) or 'none'})"
        )


def _id_of(row: dict[str, Any]) -> str:
    """The row's own id, or nothing."""
    given = row.get("id")
    return "" if given is None else str(given).strip()


def _recording(where: str, row: dict[str, Any], columns: tuple[str, str]) -> str | None:
    """The id that the row gives of its recording, by number or link; a wrong one is an error."""
    read = freesound_id if "freesound" in columns else youtube_id
    for column in columns:
        value = row.get(column)
        if value is None or not str(value).strip():
            continue
        found = read(value)
        if found is None:
            raise UserError(f"{where}: {column} {value!r} is no such id; mend it or leave it empty")
        return found
    return None


def _bounds(where: str, row: dict[str, Any]) -> tuple[float | None, float | None]:
    start, end = (seconds(where, key, row.get(key)) for key in ("start", "end"))
    check_bounds(where, start, end)
    return start, end


def _texts(where: str, key: str, value: Any) -> tuple[str, ...]:
    """Labels or captions: a list in JSON, separated by ; in CSV (or one text)."""
    if value is None:
        return ()
    parts = value.split(";") if isinstance(value, str) else value
    if not isinstance(parts, list) or not all(isinstance(part, str) for part in parts):
        raise UserError(f"{where}: {key} {value!r} is not a text or a list of texts")
    return tuple(part.strip() for part in parts if part.strip())
