"""Pairs as VIP-ANT's authors keep them: lists of caption ids, and a map from id to caption.

    X_cap.csv   a line a frame: ["ID.p0.4_01", [caption ids]]; a clip has those of all its frames
    X.json      {"ID": [caption ids], ...}
    X_map.csv   a line a caption: [caption id, "caption"]; beside either of the two

Scores are not kept. An id of digits alone is a number in the files. A map that is there already
is kept where it has the captions; its captions are read with single spaces, as all captions are.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from pivot.data.captions import read_captions
from pivot.data.pair_tables import Pair
from pivot.data.tables import begins_with, json_lines, read_json
from pivot.errors import DataError
from video_prep.files import write_whole

CAP, MAP = "_cap.csv", "_map.csv"
FRAME = re.compile(r"(.+)\.p0(?:(?:\.\d+)+_\d+)?(?:\.[A-Za-z]\w{1,3})?", re.DOTALL)
NUMBER = re.compile(r"0|[1-9][0-9]{0,17}")


def frame_name(clip: str, frame: int, frames: int) -> str:
    """Name of the frame-th frame, from 0, of a clip with `frames` of them."""
    return f"{clip}.p0.{frames}_{frame + 1:02d}"


def clip_of(name: str) -> str:
    """The clip of a frame's name; any other name is a clip's."""
    found = FRAME.fullmatch(name)
    return found[1] if found else name


def map_of(path: Path) -> Path:
    """The map that belongs to X_cap.csv or X.json."""
    stem = path.name[: -len(CAP)] if path.name.endswith(CAP) else path.stem
    return path.with_name(stem + MAP)


# ---- reading --------------------------------------------------------------------------------


def is_cap(path: Path) -> bool:
    """Whether a .csv has lines such as ["ID.p0.4_01", [1, 2]]."""
    if path.suffix.lower() != ".csv" or not begins_with(path, "["):
        return False
    _, first = next(json_lines(path), (0, None))
    return isinstance(first, list) and len(first) == 2 and isinstance(first[1], list)


def is_lists(path: Path, captions: str | None = None) -> bool:
    """Whether a file is read as lists of caption ids: by its lines, or .json with a map."""
    if path.suffix.lower() == ".json":
        return captions is not None or map_of(path).is_file()
    return is_cap(path)


def has_ids(path: Path) -> bool:
    """Whether a JSON file is {id: [numbers]}: caption ids, which mean nothing without a map."""
    value = read_json(path)
    lists = value.values() if isinstance(value, dict) else ()
    return any(isinstance(ids, list) and ids and isinstance(ids[0], int) for ids in lists)


def no_map(path: Path) -> DataError:
    """The error of lists whose captions are not there."""
    return DataError(
        f"{path} lists captions by id and there is no {map_of(path).name} beside it; name their "
        "file with --captions"
    )


def read_lists(path: Path, captions: str | None, rule: str) -> Iterator[Pair]:
    """Pairs of X_cap.csv or X.json; `captions` is the map, else the one beside the file.

    A clip's captions come in the order in which its frames name them, each once. Raises DataError
    for a caption that is not in the map, and for a file without map.
    """
    source = map_of(path) if captions is None else Path(captions)
    if captions is None and not source.is_file():
        raise no_map(path)
    texts = {caption.id: caption for caption in read_captions(source, [])}
    for clip, ids in _lists(path).items():
        for name, place in ids.items():
            if name not in texts:
                raise DataError(f"{path} {place}: caption {name} is not in {source}, or is empty")
            yield Pair(clip, texts[name].id, texts[name].text, rule=rule)


def _lists(path: Path) -> dict[str, dict[str, str]]:
    """Clip -> caption id -> where it stood first."""
    found: dict[str, dict[str, str]] = {}
    for place, name, ids in _cap_rows(path) if path.suffix.lower() == ".csv" else _entries(path):
        if not isinstance(name, str) or not isinstance(ids, list):
            raise DataError(f'{path} {place} is not ["ID", [caption ids]]')
        clip = found.setdefault(clip_of(name) if place.startswith("line") else name, {})
        for one in ids:
            if isinstance(one, bool) or not isinstance(one, int | str):
                raise DataError(f"{path} {place}: caption id {one!r} is neither number nor text")
            clip.setdefault(str(one), place)
    return found


def _cap_rows(path: Path) -> Iterator[tuple[str, Any, Any]]:
    for number, row in json_lines(path):
        if not isinstance(row, list) or len(row) != 2:
            raise DataError(f'{path} line {number} is not ["ID.p0.4_01", [caption ids]]')
        yield f"line {number}", row[0], row[1]


def _entries(path: Path) -> Iterator[tuple[str, Any, Any]]:
    value = read_json(path)
    if not isinstance(value, dict):
        raise DataError(f"{path} is not an object {{id: [caption ids]}}")
    for name, ids in value.items():
        yield f"entry {name}", name, ids


# ---- writing --------------------------------------------------------------------------------


def write_lists(file: BinaryIO, path: Path, rows: Iterable[Pair]) -> int:
    """Write pairs as X_cap.csv (a line a clip, as if it had one frame) or X.json, and their map.

    `file` is open for `path`. The lists are gathered first: some bytes a pair. Returns the number
    of pairs; one that stands twice is written once. Raises DataError where an id has two captions.
    """
    lists: dict[str, dict[str, None]] = {}
    texts: dict[str, str] = {}
    for pair in rows:
        name = texts.setdefault(pair.caption_id, pair.caption)
        if name != pair.caption:
            raise DataError(
                f'caption id {pair.caption_id} stands for "{name}" and for "{pair.caption}"; '
                f"{path.name} needs one caption an id"
            )
        lists.setdefault(pair.audio_id, {})[pair.caption_id] = None
    if lists:
        write_map(path, texts)
    entries = ((clip, list(ids)) for clip, ids in lists.items())
    if path.name.endswith(CAP):
        write_cap(file, ((frame_name(clip, 0, 1), ids) for clip, ids in entries))
    else:
        file.write(b"{")
        for number, (clip, ids) in enumerate(entries):
            comma = ",\n" if number else "\n"
            file.write(f"{comma}{_json(clip)}: {_json([*map(_value, ids)])}".encode())
        file.write(b"\n}\n")
    return sum(map(len, lists.values()))


def write_cap(file: BinaryIO, lines: Iterable[tuple[str, Sequence[str]]]) -> None:
    """Write a line each: the name of a frame, and the ids of its captions, best first."""
    for name, ids in lines:
        file.write(f"[{_json(name)}, {_json([*map(_value, ids)])}]\n".encode())


def check_map(path: Path, texts: Mapping[str, str]) -> None:
    """Raise DataError where there is a map beside `path` that lacks some of these captions."""
    target = map_of(path)
    if not target.is_file():
        return
    there = {caption.id: caption.text for caption in read_captions(target, [])}
    for name, text in texts.items():
        if there.get(name) != " ".join(text.split()):
            raise DataError(
                f"{target} is there and does not have caption {name} as it is here; remove the "
                "map, or name another --out"
            )


def write_map(path: Path, texts: Mapping[str, str]) -> None:
    """Write the captions beside X_cap.csv or X.json, or leave a map that has them all."""
    check_map(path, texts)
    if not map_of(path).is_file():
        lines = (f"[{_json(_value(name))}, {_json(text)}]\n" for name, text in texts.items())
        write_whole(map_of(path), "".join(lines))


def _value(name: str) -> int | str:
    return int(name) if NUMBER.fullmatch(name) else name


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
