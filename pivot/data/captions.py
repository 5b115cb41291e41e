"""Captions from the files people have: txt, csv, tsv, JSON, JSON lines, COCO, YAML, shards.

AudioCaps, Clotho, COCO, MACS, WavCaps, LAION's tars and VIP-ANT's X_map.csv and index files read as
they are downloaded. Columns are found by name; a file may give several captions to a clip, in rows
or in columns. Captions without a clip are fine for mining. A folder of such files is one pool.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from pivot.data.tables import begins_with, column, csv_rows, json_lines, read_json, read_lines
from pivot.errors import DataError, SettingsError
from video_prep.shards import SelectText, ShardFolder, is_shards
from video_prep.sources import macs
from video_prep.storage.remote import is_url

TEXT = ("caption", "text", "sentence", "sample_caption", "captions")
CLIP = (
    "clip", "clip_id", "audio_id", "youtube_id", "ytid", "file_name", "filename", "fname",
    "audio_name", "image_id", "video_id", "id", "wav_path", "path", "audio", "file",
)  # fmt: skip
OWN = ("caption_id", "audiocap_id")
FILES = (".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".txt")
SUFFIX = re.compile(r"\.[A-Za-z][A-Za-z0-9]{1,3}$")  # of a media file
NUMBERED = re.compile(r"^(caption|sentence|text)[_ ]?\d+$")

Found = tuple[str, Any, str | None, str]  # caption id or "", text, clip, where it stood


@dataclass(frozen=True, slots=True)
class Caption:
    """A sentence with its own id and, where known, the clip that it describes."""

    id: str
    text: str
    clip: str | None = None


def read_captions(
    path: str | Path, skipped: list[str] | None = None, select_text: SelectText = "none"
) -> list[Caption]:
    """All captions of a file, of shards or of a folder of files, in their order.

    `select_text` is LAION-CLAP's rule for LAION's tars: see video_prep/storage/laion_facts.py.

    Duplicates are kept. The files of a folder come in the order of their names; where an id stands
    in two of them, all ids become "FILE:ID". Empty captions are named in `skipped`; without that
    list they are an error. Raises DataError for a file without captions, of an unknown layout, or
    with a caption id twice.
    """
    files = _files_of(path)
    if select_text != "none" and (files or not is_shards(path)):
        raise SettingsError(
            f"--select-text {select_text} is for LAION's tars, and {path} holds none; leave it out"
        )
    captions = _of_files(files, skipped) if files else list(_captions(path, skipped, select_text))
    if not captions:
        raise DataError(f"{path} holds no caption")
    _check_unique(captions, path)
    return captions


def _captions(
    path: str | Path, skipped: list[str] | None, select_text: SelectText
) -> Iterator[Caption]:
    numbers: dict[str | None, int] = {}
    for own, text, clip, place in _found(path, select_text):
        if not isinstance(text, str):
            raise DataError(f"{path} {place}: caption {text!r} is not text")
        sentence = " ".join(text.split())
        if not sentence:
            _skip(f"{path} {place}: empty caption", skipped)
            continue
        numbers[clip] = numbers.get(clip, -1) + 1
        yield Caption(own or _name(clip, numbers[clip]), sentence, clip)


def _files_of(path: str | Path) -> list[Path]:
    """Caption files of a folder that is no shards; nothing for anything else."""
    folder = Path(path)
    if not folder.is_dir() or is_shards(path):
        return []
    return sorted(file for file in folder.iterdir() if file.suffix.lower() in FILES)


def _of_files(files: list[Path], skipped: list[str] | None) -> list[Caption]:
    parts = [(file, read_captions(file, skipped)) for file in files]
    counts = ", ".join(f"{len(part)} of {file.name}" for file, part in parts)
    print(f"captions of {files[0].parent}: {counts}", file=sys.stderr)
    ids = Counter(caption.id for _, part in parts for caption in part)
    if max(ids.values()) == 1:
        return [caption for _, part in parts for caption in part]
    return [Caption(f"{file.name}:{c.id}", c.text, c.clip) for file, part in parts for c in part]


def fold(captions: Iterable[Caption]) -> list[Caption]:
    """The first caption of each text: equal sentences cannot be told apart by any encoder."""
    first: dict[str, Caption] = {}
    for caption in captions:
        first.setdefault(caption.text, caption)
    return list(first.values())


def by_clip(captions: Iterable[Caption]) -> dict[str, list[Caption]]:
    """Captions of each clip, in their order; those without a clip are left out."""
    groups: dict[str, list[Caption]] = {}
    for caption in captions:
        if caption.clip is not None:
            groups.setdefault(caption.clip, []).append(caption)
    return groups


def clip_numbers(captions: Iterable[Caption], ids: Sequence[str]) -> list[int | None]:
    """Position in `ids` of each caption's clip, as `find_clips` finds it; else None."""
    return find_clips((caption.clip for caption in captions), ids)


def find_clips(names: Iterable[str | None], ids: Sequence[str]) -> list[int | None]:
    """Position in `ids` of each clip's name, or None.

    An equal id comes first, then one that is equal but for a media suffix on either side: Clotho
    names files ("rain.wav"), prepared shards name clips ("rain"). Two ids that differ in their
    suffix alone ("rain.wav", "rain.mp3") are not found by "rain".
    """
    finder = ClipFinder(ids)
    return [None if name is None else finder(name) for name in names]


class ClipFinder:
    """Finds one name after the other in the same ids; see `find_clips`."""

    def __init__(self, ids: Sequence[str]) -> None:
        self.exact = {clip: i for i, clip in enumerate(ids)}
        self.bare: dict[str, int | None] = {}
        for clip, i in self.exact.items():
            if (name := SUFFIX.sub("", clip)) != clip:
                self.bare[name] = None if name in self.bare else i

    def __call__(self, name: str) -> int | None:
        """Position of the clip, or None."""
        bare = SUFFIX.sub("", name)
        for table, key in ((self.exact, name), (self.exact, bare), (self.bare, name)):
            if key in table:
                return table[key]
        return None


def _name(clip: str | None, number: int) -> str:
    return str(number) if clip is None else f"{clip}#{number}"


def _skip(reason: str, skipped: list[str] | None) -> None:
    if skipped is None:
        raise DataError(f"{reason}; remove it")
    skipped.append(reason)


def _check_unique(captions: list[Caption], path: str | Path) -> None:
    seen: set[str] = set()
    for caption in captions:
        if caption.id in seen:
            raise DataError(f"{path}: caption id {caption.id} stands twice; ids must differ")
        seen.add(caption.id)


# ---- layouts --------------------------------------------------------------------------------


def _found(source: str | Path, select_text: SelectText) -> Iterator[Found]:
    path = Path(source)
    if is_url(source) or path.is_dir():
        return _of_shards(source, select_text)
    suffix = path.suffix.lower()
    # X_map.csv and the index files of VIP-ANT's authors are JSON lines
    if suffix in (".jsonl", ".ndjson") or (suffix == ".csv" and begins_with(path, "[{")):
        return _of_objects(json_lines(path), "line", path)
    if suffix in (".csv", ".tsv"):
        return _of_table(csv_rows(path), path)
    if suffix == ".json":
        return _of_json(read_json(path), path)
    if macs.is_table(path):
        rows = macs.read(path)
        return (("", text, row.file, f"entry {row.line}") for row in rows for text in row.captions)
    if suffix in (".txt", ""):
        lines = enumerate(read_lines(path), 1)
        return (("", line, None, f"line {n}") for n, line in lines if line.strip())
    raise DataError(f"{path}: captions are read from txt, csv, tsv, json, jsonl, or shards")


def _of_shards(path: str | Path, select_text: SelectText) -> Iterator[Found]:
    shards = ShardFolder(path, select_text=select_text)
    for clip, facts in zip(shards.ids, shards.all_facts(), strict=True):
        for text in facts["captions"]:
            yield "", text, clip, f"clip {clip}"


def _of_table(rows: Iterator[list[str]], path: Path) -> Iterator[Found]:
    header = next(rows, [])
    texts = [i for i, cell in enumerate(header) if NUMBERED.match(cell.strip().lower())]
    one = column(header, TEXT)
    texts = texts or ([] if one is None else [one])
    clip, own = column(header, CLIP), column(header, OWN)
    first = 2
    if not texts:
        if len(header) != 1:
            raise DataError(
                f"{path}: no caption column among {', '.join(header)}; "
                "call one `caption` (and one `id`, the clip's)"
            )
        texts, rows, first = [0], chain([header], rows), 1  # a list of sentences
    for number, row in enumerate(rows, first):
        if len(row) < len(header) or any(row[len(header) :]):
            raise DataError(
                f"{path} row {number} has {len(row)} cells instead of {len(header)}; a text with a "
                "comma stands in quotes"
            )
        owner = None if clip is None else row[clip]
        for i in texts:
            yield "" if own is None else row[own], row[i], owner, f"row {number}"


def _of_json(value: Any, path: Path) -> Iterator[Found]:
    if isinstance(value, dict) and isinstance(value.get("annotations"), list):  # COCO
        for n, row in enumerate(value["annotations"]):
            if not isinstance(row, dict) or "caption" not in row:
                raise DataError(f"{path} annotation {n} has no caption; is this a caption file?")
            clip = row.get("image_id")
            own = str(row.get("id", ""))
            yield own, row["caption"], None if clip is None else str(clip), f"annotation {n}"
    elif isinstance(value, dict) and isinstance(value.get("data"), list):  # WavCaps
        yield from _of_objects(enumerate(value["data"], 1), "entry", path)
    elif isinstance(value, dict):  # clip: caption or captions
        for clip, texts in value.items():
            for text in texts if isinstance(texts, list) else [texts]:
                yield "", text, clip, f"entry {clip}"
    elif isinstance(value, list):
        yield from _of_objects(enumerate(value, 1), "entry", path)
    else:
        raise DataError(f"{path} holds one value, not captions")


def _of_objects(rows: Iterable[tuple[int, Any]], what: str, path: Path) -> Iterator[Found]:
    for n, row in rows:
        place = f"{what} {n}"
        if isinstance(row, str):
            yield "", row, None, place
            continue
        if isinstance(row, list) and len(row) == 2 and isinstance(row[1], str):
            yield str(row[0]), row[1], None, place  # [id, caption]
            continue
        if not isinstance(row, Mapping):
            raise DataError(f"{path} {place} is neither a sentence nor an object with one")
        text = _first(row, TEXT)
        if text is None:
            raise DataError(f"{path} {place} has no `caption`")
        clip, own = _first(row, CLIP), _first(row, OWN)
        many = text if isinstance(text, list) else [text]
        for one in many:
            single = str(own) if own is not None and len(many) == 1 else ""
            yield single, one, None if clip is None else str(clip), place


def _first(row: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    return next((row[name] for name in names if row.get(name) is not None), None)
