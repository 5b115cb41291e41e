"""Lists of clip ids: which clips count, in the files that the field hands around."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from pivot.data.benchmarks import MEDIA
from pivot.data.captions import CLIP
from pivot.data.tables import begins_with, column, csv_rows, read_json, read_json_lines, read_text
from pivot.errors import DataError
from video_prep.sources.wavcaps import blacklist

COLUMNS = ("slice_file_name", *CLIP)


def read_ids(path: str | Path) -> list[str]:
    """Clip ids of a list, in its order; an id that stands twice comes twice.

    txt: one a line. csv, tsv: the column `id`, `youtube_id`, `audio_id`, `file_name`, ... (COLUMNS;
    the first of them that the header has), the only column, or the first one of AudioSet's and
    VGGSound's lists, which have no header. json: a list of ids or of objects with such a key, an
    object whose keys are the ids, or WavCaps's {"AudioSet": ids, "FreeSound": ids}. jsonl: an id or
    such an object a line, also under the name .csv (as VIP-ANT's index files). Raises DataError for
    a list without ids, or with an empty one.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix in (".jsonl", ".ndjson") or (suffix == ".csv" and begins_with(path, "{")):
        ids = _of_objects(read_json_lines(path), "value", path)
    elif suffix in (".csv", ".tsv"):
        ids = _of_table(csv_rows(path), path)
    elif suffix == ".json":
        ids = _of_json(read_json(path), path)
    elif suffix in (".txt", ""):
        ids = [line.strip() for line in read_text(path).splitlines() if line.strip()]
    else:
        raise DataError(f"{path}: ids are read from txt, csv, tsv, json or jsonl")
    if not ids:
        raise DataError(f"{path} holds no id")
    return ids


def _of_table(rows: Iterator[list[str]], path: Path) -> list[str]:
    head = next(rows, [])
    place, first = column(head, COLUMNS), 2
    if place is None:
        place, rows, first = _without_header(head, path), chain([head], rows), 1
    ids = []
    for number, row in enumerate(rows, first):
        name = row[place].strip() if place < len(row) else ""
        if not name:
            raise DataError(f"{path} row {number} has no id")
        ids.append(name)
    return ids


def _without_header(first: list[str], path: Path) -> int:
    """Place of the ids in a table without a header: AudioSet's and VGGSound's have them first."""
    timed = len(first) > 2 and first[1].strip().replace(".", "", 1).isdigit()
    named = bool(first) and Path(first[0]).suffix.lower() in MEDIA
    if len(first) != 1 and not timed and not named:
        raise DataError(f"{path}: no id column among {', '.join(first)}; call one `id`")
    return 0


def _of_json(value: Any, path: Path) -> list[str]:
    if (listed := blacklist(value)) is not None:
        return [name for _, name in listed]
    if isinstance(value, dict):
        return list(value)
    if not isinstance(value, list):
        raise DataError(f"{path} holds one value, not a list of ids")
    return _of_objects(value, "entry", path)


def _of_objects(values: list[Any], what: str, path: Path) -> list[str]:
    ids = []
    for number, value in enumerate(values, 1):
        if isinstance(value, dict):
            value = next((value[key] for key in COLUMNS if value.get(key) is not None), None)
        if isinstance(value, bool) or not isinstance(value, str | int) or not str(value).strip():
            raise DataError(f"{path} {what} {number} is no id; call its key `id`")
        ids.append(str(value).strip())
    return ids
