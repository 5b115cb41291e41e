"""Labels of clips in words, as captions: "the sound of dog bark" (GL)."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from pivot.data.benchmarks import tidy
from pivot.data.captions import Caption
from pivot.data.ids import COLUMNS
from pivot.data.prompts import apply
from pivot.data.tables import begins_with, column, csv_rows, json_lines, read_json
from pivot.errors import DataError
from video_prep.shards import ShardFolder
from video_prep.sources.ontology import FILES, read_names
from video_prep.storage.remote import is_url

LABELS = ("labels", "label", "positive_labels", "category", "class")
MID = re.compile(r"/[a-z]/\w+")  # /m/09x0r, /t/dd00088
MIDS = re.compile(rf"{MID.pattern}(\s*,\s*{MID.pattern})+")

Row = tuple[str, Iterable[str], str]  # clip, labels, where it stood


def label_captions(source: str, prompt: str, joined: bool) -> list[Caption]:
    """A caption for each label of each clip, or one a clip with all of them, joined by ", ".

    `source`: prepared shards, or a table with the clip's id and its labels: csv, tsv (separated by
    ;), jsonl, json ({id: labels} or objects), AudioSet's own lists, VIP-ANT's index files. Label
    ids such as /m/09x0r are named by AudioSet's files beside the table. Labels are in lower case,
    each once a clip; the caption's id is the label. Raises DataError where there is no label, or
    one without a name.
    """
    captions: list[Caption] = []
    for clip, labels in _by_clip(source).items():
        words = [", ".join(labels)] if joined else labels
        captions += [Caption(word, apply(prompt, word), clip) for word in words if word]
    if not captions:
        raise DataError(f"{source} holds no label")
    return captions


def _by_clip(source: str) -> dict[str, list[str]]:
    names, file = _names(source)
    found: dict[str, dict[str, None]] = {}
    met = False
    for clip, labels, place in _rows(source):
        own = found.setdefault(clip, {})
        for label in map(str.strip, labels):
            if MID.fullmatch(label):
                met = True
                if label not in names:
                    raise DataError(_nameless(source, place, label, file))
                label = names[label]
            if word := tidy(label).lower():
                own[word] = None
    if met:
        print(f"labels are named by {file}", file=sys.stderr)
    return {clip: list(labels) for clip, labels in found.items()}


def _names(source: str) -> tuple[dict[str, str], Path | None]:
    """Label id -> name by AudioSet's file beside a table, and that file."""
    if is_url(source) or Path(source).is_dir():
        return {}, None
    files = (Path(source).parent / name for name in FILES)
    file = next((file for file in files if file.is_file()), None)
    return ({}, None) if file is None else (read_names(file), file)


def _nameless(source: str, place: str, label: str, file: Path | None) -> str:
    if file is not None:
        return f"{source} {place}: label {label} is not in {file}; take the one it belongs to"
    files = " or ".join(FILES)
    todo = f"put {files} beside it, or, for shards, prepare them again with --ontology"
    return f"{source} {place}: label {label} has no name; {todo}"


def _rows(source: str) -> Iterator[Row]:
    path = Path(source)
    suffix = path.suffix.lower()
    if is_url(source) or path.is_dir():
        shards = ShardFolder(source)
        for clip, facts in zip(shards.ids, shards.all_facts(), strict=True):
            yield clip, facts["labels"], f"clip {clip}"
    elif suffix in (".jsonl", ".ndjson") or (suffix == ".csv" and begins_with(path, "{")):
        yield from _objects(json_lines(path), "line", path)
    elif suffix == ".json":
        value = read_json(path)
        if isinstance(value, dict):
            value = [{"id": clip, "labels": labels} for clip, labels in value.items()]
        if not isinstance(value, list):
            raise DataError(f"{path} holds one value, not clips with labels")
        yield from _objects(enumerate(value, 1), "entry", path)
    elif suffix in (".csv", ".tsv"):
        yield from _table(csv_rows(path), path)
    else:
        raise DataError(f"{source}: labels of clips are read from shards, csv, tsv, json or jsonl")


def _objects(rows: Iterable[tuple[int, Any]], what: str, path: Path) -> Iterator[Row]:
    for number, row in rows:
        place = f"{what} {number}"
        clip = _first(row, COLUMNS)
        labels = _first(row, LABELS)
        if isinstance(labels, str):
            labels = _split(labels)
        if clip is None or not isinstance(labels, list):
            raise DataError(f"{path} {place} lacks `id` or `labels`")
        if not all(isinstance(label, str) for label in labels):
            raise DataError(f"{path} {place}: labels {labels!r} are not texts")
        yield str(clip), labels, place


def _first(row: Any, names: Iterable[str]) -> Any:
    if not isinstance(row, dict):
        return None
    return next((row[name] for name in names if row.get(name) is not None), None)


def _table(rows: Iterator[list[str]], path: Path) -> Iterator[Row]:
    header = next(rows, [])
    clip, labels = column(header, COLUMNS), column(header, LABELS)
    if clip is None and labels is None and len(header) == 4 and MID.match(header[3].strip()):
        clip, labels = 0, 3  # AudioSet's lists have their header in a comment
        yield header[0], _split(header[3]), "row 1"
    if clip is None or labels is None:
        raise DataError(
            f"{path}: no column of clip ids and of labels among {', '.join(header)}; "
            "call them `id` and `labels`"
        )
    for number, row in enumerate(rows, 2):
        if len(row) <= max(clip, labels) or any(row[len(header) :]):
            raise DataError(
                f"{path} row {number} has {len(row)} cells instead of {len(header)}; labels are "
                "separated by ; and a label with a comma stands in quotes"
            )
        yield row[clip], _split(row[labels]), f"row {number}"


def _split(cell: str) -> list[str]:
    """Labels of a cell: separated by ";", and by "," where they are all ids."""
    parts = [part.strip() for part in cell.split(";")]
    return [one for part in parts for one in (part.split(",") if MIDS.fullmatch(part) else [part])]
