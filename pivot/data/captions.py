"""Captions from the files people have: txt, csv, tsv, JSON, JSON lines, COCO, prepared shards.

AudioCaps, Clotho and COCO read as they are downloaded. Columns are found by name; a file may give
several captions to a clip, in rows or in columns. Captions without a clip are fine for mining.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pivot.data.tables import column, read_csv, read_json, read_json_lines, read_text
from pivot.errors import DataError
from video_prep.shards import ShardFolder
from video_prep.storage.remote import is_url

TEXT = ("caption", "text", "sentence", "sample_caption", "captions")
CLIP = (
    "clip", "clip_id", "audio_id", "youtube_id", "ytid", "file_name", "filename", "fname",
    "audio_name", "image_id", "video_id", "id", "wav_path", "path", "audio", "file",
)  # fmt: skip
OWN = ("caption_id", "audiocap_id")
SUFFIX = re.compile(r"\.[A-Za-z0-9]{2,4}$")  # of a media file
NUMBERED = re.compile(r"^(caption|sentence|text)[_ ]?\d+$")

Found = tuple[str, Any, str | None, str]  # caption id or "", text, clip, where it stood


@dataclass(frozen=True)
class Caption:
    """A sentence with its own id and, where known, the clip that it describes."""

    id: str
    text: str
    clip: str | None = None


def read_captions(path: str | Path, skipped: list[str] | None = None) -> list[Caption]:
    """All captions of a file or of prepared shards, in their order, duplicates kept.

    Empty captions are named in `skipped`; without that list they are an error. Raises DataError
    for a file without captions, of an unknown layout, or with a caption id twice.
    """
    captions: list[Caption] = []
    numbers: dict[str | None, int] = {}
    for own, text, clip, place in _found(path):
        if not isinstance(text, str):
            raise DataError(f"{path} {place}: caption {text!r} is not text")
        sentence = " ".join(text.split())
        if not sentence:
            _skip(f"{path} {place}: empty caption", skipped)
            continue
        numbers[clip] = numbers.get(clip, -1) + 1
        captions.append(Caption(own or _name(clip, numbers[clip]), sentence, clip))
    if not captions:
        raise DataError(f"{path} holds no caption")
    _check_unique(captions, path)
    return captions


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
    """Position in `ids` of each caption's clip, by id or by id less a file suffix; else None.

    Clotho names files ("rain.wav"), prepared shards name clips ("rain").
    """
    numbers = {clip: i for i, clip in enumerate(ids)}
    return [_number(caption.clip, numbers) for caption in captions]


def _number(clip: str | None, numbers: dict[str, int]) -> int | None:
    if clip is None:
        return None
    return numbers.get(clip, numbers.get(SUFFIX.sub("", clip)))


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


def _found(source: str | Path) -> Iterator[Found]:
    path = Path(source)
    if is_url(source) or path.is_dir():
        return _of_shards(source)
    suffix = path.suffix.lower()
    if suffix in (".csv", ".tsv"):
        return _of_table(read_csv(path), path)
    if suffix == ".json":
        return _of_json(read_json(path), path)
    if suffix in (".jsonl", ".ndjson"):
        return _of_objects(read_json_lines(path), "line", path)
    if suffix in (".txt", ""):
        lines = enumerate(read_text(path).splitlines(), 1)
        return (("", line, None, f"line {n}") for n, line in lines if line.strip())
    raise DataError(f"{path}: captions are read from txt, csv, tsv, json, jsonl, or shards")


def _of_shards(path: str | Path) -> Iterator[Found]:
    shards = ShardFolder(path)
    for clip, facts in zip(shards.ids, shards.all_facts(), strict=True):
        for text in facts["captions"]:
            yield "", text, clip, f"clip {clip}"


def _of_table(rows: list[list[str]], path: Path) -> Iterator[Found]:
    header = rows[0] if rows else []
    texts = [i for i, cell in enumerate(header) if NUMBERED.match(cell.strip().lower())]
    one = column(header, TEXT)
    texts = texts or ([] if one is None else [one])
    clip, own = column(header, CLIP), column(header, OWN)
    if not texts:
        if len(header) == 1:
            texts = [0]  # one column without a header is a list of sentences
        else:
            raise DataError(
                f"{path}: no caption column among {', '.join(header)}; "
                "call one `caption` (and one `id`, the clip's)"
            )
        body = rows
    else:
        body = rows[1:]
    offset = 1 + len(rows) - len(body)
    for number, row in enumerate(body, offset):
        if len(row) < len(header):
            raise DataError(f"{path} row {number} has {len(row)} cells instead of {len(header)}")
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
    elif isinstance(value, dict):  # clip: caption or captions
        for clip, texts in value.items():
            for text in texts if isinstance(texts, list) else [texts]:
                yield "", text, clip, f"entry {clip}"
    elif isinstance(value, list):
        yield from _of_objects(value, "entry", path)
    else:
        raise DataError(f"{path} holds one value, not captions")


def _of_objects(rows: list[Any], what: str, path: Path) -> Iterator[Found]:
    for n, row in enumerate(rows, 1):
        place = f"{what} {n}"
        if isinstance(row, str):
            yield "", row, None, place
            continue
        if not isinstance(row, Mapping):
            raise DataError(f"{path} {place} is neither a sentence nor an object")
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
