"""Names of AudioSet's labels: /m/09x0r becomes Speech, by the ontology or the table of classes."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

from video_prep.errors import UserError
from video_prep.sources.rows import csv_cells, first_row, read_lines

FILES = ("ontology.json", "class_labels_indices.csv")  # as AudioSet's site calls them
MID = re.compile(r"/[a-z]/\w+")  # ids of Freebase and its successors: /m/09x0r, /t/dd00088


class LabelNames:
    """Turns labels that are ids such as /m/09x0r into names; other labels stay as they are.

    The names come from the file `ontology`, else from one of FILES beside the list `source`. An id
    that is in the list but not in that file is a UserError: labels of two kinds would be trained on
    as if they were of one. Without any file the ids stay, and `finish` says so.
    """

    def __init__(self, source: Path, ontology: str | None) -> None:
        self._source, self._given = source, ontology is not None
        self._file = _beside(source) if ontology is None else Path(ontology)
        self._names = {} if ontology is None else read_names(Path(ontology))
        self._known: dict[tuple[str, ...], tuple[str, ...]] = {}
        self._first = ""  # the first id that was met

    def __call__(self, labels: tuple[str, ...]) -> tuple[str, ...]:
        """The labels of one clip with their names; equal tuples come back as one object."""
        if labels not in self._known:
            self._known[labels] = tuple(self._name(label) for label in labels)
        return self._known[labels]

    def _name(self, label: str) -> str:
        if not MID.fullmatch(label):
            return label
        if not self._first and self._file is not None and not self._given:
            self._names = read_names(self._file)
        self._first = self._first or label
        if self._file is None:
            return label
        if label not in self._names:
            raise UserError(
                f"{self._source}: label {label!r} is not in {self._file}; give --ontology the "
                "ontology.json that belongs to this list"
            )
        return self._names[label]

    def finish(self) -> None:
        """Say on stderr where the names came from; UserError where the file given was for nothing.

        To be called when every label was seen.
        """
        if self._first and self._file is None:
            print(
                f"labels stay ids such as {self._first}: there is no {' or '.join(FILES)} beside "
                f"{self._source} (--ontology names one)",
                file=sys.stderr,
            )
        elif self._first and not self._given:
            print(f"labels are named by {self._file}", file=sys.stderr)
        elif self._given and not self._first:
            raise UserError(
                f"{self._source} has no label that is an id such as /m/09x0r; leave out --ontology"
            )


def _beside(source: Path) -> Path | None:
    files = (source.parent / name for name in FILES)
    return next((file for file in files if file.is_file()), None)


def read_names(path: Path) -> dict[str, str]:
    """Label id -> name, from AudioSet's ontology.json or class_labels_indices.csv."""
    if not path.is_file():
        raise UserError(f"--ontology {path} is not a file; give AudioSet's {' or '.join(FILES)}")
    names = _from_json(path) if first_row(path).lstrip()[:1] in {"[", "{"} else _from_table(path)
    if not names:
        raise UserError(f"{path} is neither AudioSet's {' nor its '.join(FILES)}")
    return names


def _from_json(path: Path) -> dict[str, str]:
    try:
        entries: Any = json.loads("".join(read_lines(path)))
        return {entry["id"]: str(entry["name"]) for entry in entries}
    except (ValueError, TypeError, KeyError, RecursionError):
        return {}


def _from_table(path: Path) -> dict[str, str]:
    rows = csv_cells(path)
    _, header = next(rows, (0, []))
    if not {"mid", "display_name"} <= set(header):
        return {}
    mid, name = header.index("mid"), header.index("display_name")
    return {cells[mid]: cells[name] for _, cells in rows if len(cells) == len(header)}
