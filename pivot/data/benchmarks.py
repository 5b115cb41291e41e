"""Label lists of the field's benchmarks, read as they are published.

ESC-50, UrbanSound8K, AudioSet, FSD50K, VGGSound: class lists (csv, json) or the csv of their clips,
and plain text. Labels keep the order of their index where there is one, else of first appearance;
those of AudioSet's ontology.json (632, abstract ones too) the order of that file.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pivot.data.tables import column, read_csv, read_json, read_json_lines, read_text
from pivot.errors import DataError
from video_prep.sources.ontology import MID

NAME = ("display_name", "category", "class", "label", "labels", "name", "class_name", "caption")
INDEX = ("index", "target", "classid", "class_id")
MEDIA = (".mp4", ".wav", ".flac", ".ogg", ".mp3", ".m4a", ".webm", ".mkv")


def read_labels(path: str | Path) -> list[str]:
    """Class names of a label file, each once, "_" as a space.

    Raises DataError for a file without names, and for ids such as /m/09x0r in their place.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix in (".csv", ".tsv"):
        names = _of_table(read_csv(path), path)
    elif suffix == ".json":
        names = _of_json(read_json(path), path)
    elif suffix in (".jsonl", ".ndjson"):
        names = _of_list(read_json_lines(path), path)
    else:
        names = [line for line in read_text(path).splitlines() if line.strip()]
    labels = unique_labels(names)
    if not labels:
        raise DataError(f"{path} holds no label")
    refuse_ids(labels, path)
    return labels


def refuse_ids(labels: Iterable[str], where: str | Path) -> None:
    """DataError where a label of `where` is an id such as /m/09x0r: as a text it means nothing."""
    for label in (label.replace(" ", "_") for label in labels):  # as before it was made tidy
        if MID.fullmatch(label):
            raise DataError(
                f"{where} has the id {label!r} for a label; prepare the clips with --ontology, or "
                "give a list of names"
            )


def tidy(label: str) -> str:
    """A label as people write it: "_" as a space, single spaces."""
    return " ".join(label.replace("_", " ").split())


def unique_labels(labels: Iterable[str]) -> list[str]:
    """Tidy labels, each once (case aside), in order of first appearance; empty ones left out."""
    first: dict[str, str] = {}
    for label in map(tidy, labels):
        if label:
            first.setdefault(label.casefold(), label)
    return list(first.values())


def label_index(labels: Iterable[str]) -> dict[str, int]:
    """Position of each label by its tidy, case-folded name."""
    return {tidy(label).casefold(): i for i, label in enumerate(labels)}


def _of_table(rows: list[list[str]], path: Path) -> list[str]:
    header = rows[0] if rows else []
    name, index = column(header, NAME), column(header, INDEX)
    if name is not None and not _is_class_row(header):
        body = _full(rows[1:], name, path)
        if index is not None and all(row[index].strip().isdigit() for row in body):
            body = sorted(body, key=lambda row: int(row[index]))
        labels = [row[name] for row in body]
        if header[name].strip().lower() == "caption" and len(set(labels)) * 2 > len(labels):
            raise DataError(f"{path} holds captions, not labels; name a label list")
        return labels
    place = _place_without_header(header)
    if place is None or len({len(row) for row in rows}) != 1:
        raise DataError(f"{path}: no label column among {', '.join(header)}; call one `label`")
    return [row[place] for row in rows]


def _place_without_header(first: list[str]) -> int | None:
    """Where labels stand in files like VGGSound's: clip,label or class,count,group or class."""
    if len(first) == 2 and Path(first[0]).suffix.lower() in MEDIA:
        return 1
    return 0 if len(first) == 1 or first[1].strip().isdigit() else None


def _is_class_row(row: list[str]) -> bool:
    """A first row such as `name,1050,group` is a class called name, not a header."""
    return any(cell.strip().isdigit() for cell in row)


def _full(rows: list[list[str]], least: int, path: Path) -> list[list[str]]:
    for number, row in enumerate(rows, 2):
        if len(row) <= least:
            raise DataError(f"{path} row {number} has {len(row)} cells; its label is missing")
    return rows


def _of_json(value: Any, path: Path) -> list[str]:
    if isinstance(value, list):
        return _of_list(value, path)
    if isinstance(value, dict) and value and all(isinstance(v, int) for v in value.values()):
        return sorted(value, key=lambda name: value[name])  # name -> index (LAION-CLAP)
    if isinstance(value, dict) and value and all(isinstance(v, str) for v in value.values()):
        pairs = [(int(key), name) for key, name in value.items() if key.isdigit()]
        if len(pairs) == len(value):  # "index" -> name
            return [name for _, name in sorted(pairs)]
    raise DataError(f"{path}: labels are a list of names, or an object name -> index")


def _of_list(rows: list[Any], path: Path) -> list[str]:
    names = []
    for number, row in enumerate(rows, 1):
        name = row if isinstance(row, str) else None
        if isinstance(row, dict):
            name = next((row[key] for key in NAME if isinstance(row.get(key), str)), None)
        if name is None:
            raise DataError(f"{path} entry {number} has no name")
        names.append(name)
    return names
