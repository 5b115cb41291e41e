"""What is to be prepared: clips from a folder, a glob, a CSV, JSON lines or one media file."""

from __future__ import annotations

import csv
import difflib
import glob as globs
import json
import math
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from video_prep.errors import UserError

_VIDEO = (
    "3g2 3gp asf avi divx f4v flv m2ts m2v m4v mkv mov mp4 mpeg mpg mts mxf ogv ts vob webm wmv"
)
_AUDIO = "aac ac3 aif aiff amr au caf flac m4a m4b mka mp2 mp3 oga ogg opus wav weba wma"
VIDEO = frozenset(f".{suffix}" for suffix in _VIDEO.split(" "))
AUDIO = frozenset(f".{suffix}" for suffix in _AUDIO.split(" "))
_LISTS = {".csv", ".tsv", ".jsonl", ".ndjson", ".json"}
_COLUMNS = ("path", "id", "start", "end", "labels", "captions")


@dataclass(frozen=True)
class Clip:
    """One input: a media file, or the piece of it between `start` and `end` seconds."""

    id: str
    path: Path
    start: float | None = None
    end: float | None = None
    labels: tuple[str, ...] = ()
    captions: tuple[str, ...] = ()
    source: str = ""  # the path as recorded: relative to the folder or list it came from


def read_clips(source: str, suffixes: frozenset[str] = VIDEO) -> list[Clip]:
    """Clips that `source` names, in order; `suffixes` are what counts in a folder.

    Raises UserError for a source that is missing, empty or wrong; a file that a list names and
    that does not exist is not an error here but a failed clip later.
    """
    path = Path(source)
    if path.is_dir():
        clips = _from_files(path, _walk(path, suffixes))
        if not clips:
            raise UserError(_nothing_in(path, suffixes))
    elif path.is_file():
        if path.suffix.lower() in _LISTS:
            clips = list(_from_rows(path, _rows(path)))
            if not clips:
                raise UserError(f"{source} lists no clips; give each a row with at least its path")
        else:
            clips = _from_files(path.parent, [path])
    elif any(mark in source for mark in "*?["):
        root = Path(*_fixed_parts(path))
        found = sorted(Path(name) for name in globs.glob(source, recursive=True))  # noqa: PTH207
        clips = _from_files(root, [file for file in found if file.is_file()])
        if not clips:
            raise UserError(f"{source} matches no file; quote the pattern and check the folder")
    else:
        raise UserError(
            f"{source} does not exist; give a folder, a glob in quotes, or a CSV or JSON-lines list"
        )
    _refuse_duplicates(source, clips)
    return clips


# ---- files ---------------------------------------------------------------------------------


def _walk(root: Path, suffixes: frozenset[str]) -> list[Path]:
    """Media files below `root` in order of their relative path; links to folders are followed."""
    found: list[Path] = []
    seen = set()
    for folder, names, files in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:  # a link that leads back
            names.clear()
            continue
        seen.add(real)
        names[:] = sorted(name for name in names if not name.startswith("."))
        found += [
            Path(folder, name)
            for name in files
            if not name.startswith(".") and Path(name).suffix.lower() in suffixes
        ]
    return sorted(found, key=lambda file: file.relative_to(root).as_posix())


def _nothing_in(path: Path, suffixes: frozenset[str]) -> str:
    if suffixes is AUDIO and _walk(path, VIDEO):
        return (
            f"{path} holds videos but no audio files; for their sound alone give a glob "
            f"such as '{path}/**/*.mp4'"
        )
    kind = "audio" if suffixes is AUDIO else "video"
    listed = ", ".join(sorted(suffixes)[:6])
    return f"{path} holds no {kind} file (looked for {listed} ... in it and below)"


def _fixed_parts(pattern: Path) -> list[str]:
    """The leading folders of a glob that hold no wildcard."""
    parts: list[str] = []
    for part in pattern.parts[:-1]:
        if any(mark in part for mark in "*?["):
            break
        parts.append(part)
    return parts


def _from_files(root: Path, files: Iterable[Path]) -> list[Clip]:
    """One whole-file clip each; ids are relative paths, with suffix where two would be equal."""
    names = [(file, PurePosixPath(_readable(file.relative_to(root).as_posix()))) for file in files]
    count = Counter(str(name.with_suffix("")) for _, name in names)
    return [
        Clip(
            id=str(name) if count[str(name.with_suffix(""))] > 1 else str(name.with_suffix("")),
            path=file.absolute(),
            source=str(name),
        )
        for file, name in names
    ]


def _readable(name: str) -> str:
    """The name with bytes that are not UTF-8 shown as \\xNN, so that it can be written down."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


# ---- lists ---------------------------------------------------------------------------------


def _rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Rows of a list as (line number, column -> value)."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read as UTF-8 text: {error}") from None
    if path.suffix.lower() in {".csv", ".tsv"}:
        return _csv_rows(path, text)
    return _json_rows(path, text)


def _csv_rows(path: Path, text: str) -> Iterator[tuple[int, dict[str, Any]]]:
    dialect = "excel-tab" if path.suffix.lower() == ".tsv" else "excel"
    reader = csv.reader(text.splitlines(keepends=True), dialect)
    header: list[str] | None = None
    try:
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            if header is None:
                header = [cell.strip() for cell in cells]
                _check_columns(str(path), header)
            elif len(cells) > len(header):
                raise UserError(
                    f"{path} line {reader.line_num}: {len(cells)} cells for {len(header)} columns; "
                    "put quotes around a cell with a comma"
                )
            else:
                yield reader.line_num, dict(zip(header, cells, strict=False))
    except csv.Error as error:
        raise UserError(f"{path} line {reader.line_num}: not valid CSV ({error})") from None


def _json_rows(path: Path, text: str) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise UserError(f"{path} line {number}: not valid JSON ({error})") from None
        try:
            json.dumps(row, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            raise UserError(f"{path} line {number}: not valid Unicode ({error})") from None
        if not isinstance(row, dict):
            raise UserError(f'{path} line {number}: not an object such as {{"path": "a.mp4"}}')
        _check_columns(f"{path} line {number}", list(row))
        yield number, row


def _check_columns(where: str, names: list[str]) -> None:
    """Refuse a list without `path`, with a column twice, or with a misspelt column."""
    for name, times in Counter(names).items():
        if times > 1:
            raise UserError(f"{where}: column {name!r} appears {times} times; keep one")
    for known in _COLUMNS:
        near = difflib.get_close_matches(known, set(names) - set(_COLUMNS), 1, 0.8)
        if known not in names and near:
            raise UserError(f"{where}: column {near[0]!r} is unknown; perhaps you meant {known!r}")
    if "path" not in names:
        raise UserError(
            f"{where}: there is no column 'path' (found: {', '.join(map(str, names)) or 'none'})"
        )


def _from_rows(path: Path, rows: Iterable[tuple[int, dict[str, Any]]]) -> Iterator[Clip]:
    for number, row in rows:
        where = f"{path} line {number}"
        name = row.get("path")
        if not isinstance(name, str) or not name.strip():
            raise UserError(f"{where}: the path is empty; give the media file of this clip")
        name = name.strip()
        start, end = (_seconds(where, key, row.get(key)) for key in ("start", "end"))
        if start is not None and end is not None and start >= end:
            raise UserError(f"{where}: start {start:g} is not before end {end:g}")
        if start is None and end == 0:
            raise UserError(f"{where}: end 0 leaves nothing of the clip")
        default = PurePosixPath(Path(name).as_posix()).with_suffix("")
        clip_id = row.get("id")
        yield Clip(
            id=str(default) if clip_id in (None, "") else str(clip_id).strip(),
            path=(path.parent / name).absolute(),
            start=start,
            end=end,
            labels=_texts(where, "labels", row.get("labels")),
            captions=_texts(where, "captions", row.get("captions")),
            source=name,
        )


def _seconds(where: str, key: str, value: Any) -> float | None:
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    try:
        seconds = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        seconds = math.nan
    if not math.isfinite(seconds) or seconds < 0:
        raise UserError(f"{where}: {key} {value!r} is not a number of seconds, 0 or more")
    return seconds


def _texts(where: str, key: str, value: Any) -> tuple[str, ...]:
    """Labels or captions: a list in JSON, separated by ; in CSV (or one text)."""
    if value is None:
        return ()
    parts = value.split(";") if isinstance(value, str) else value
    if not isinstance(parts, list) or not all(isinstance(part, str) for part in parts):
        raise UserError(f"{where}: {key} {value!r} is not a text or a list of texts")
    return tuple(part.strip() for part in parts if part.strip())


def _refuse_duplicates(source: str, clips: list[Clip]) -> None:
    first: dict[str, int] = {}
    for number, clip in enumerate(clips, 1):
        if not clip.id:
            raise UserError(f"{source}: clip {number} has an empty id")
        if clip.id in first:
            raise UserError(
                f"{source}: clips {first[clip.id]} and {number} have the same id {clip.id!r} "
                f"({clip.source}); give each an id of its own"
            )
        first[clip.id] = number
