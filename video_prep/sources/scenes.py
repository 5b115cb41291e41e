"""TUT Acoustic Scenes 2017 as it is published: meta.txt of two folders, and the official folds."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from video_prep.errors import UserError
from video_prep.sources.rows import csv_cells, first_row

# Mesaros et al., TUT Acoustic Scenes 2017: zenodo.org/records/400515 (development, four folds) and
# 1040168 (evaluation)
NAME = "TUT Acoustic Scenes 2017"
LABELS = (
    "beach", "bus", "cafe/restaurant", "car", "city_center", "forest_path", "grocery_store", "home",
    "library", "metro_station", "office", "park", "residential_area", "train", "tram",
)  # fmt: skip
FOLDS = 4
SETUP = "evaluation_setup"
_FOLDERS = ("TUT-acoustic-scenes-2017-development", "TUT-acoustic-scenes-2017-evaluation")
_TABLES = ("meta.txt", f"{SETUP}/evaluate.txt")  # the second where the evaluation set has no first
# recording, and the seconds of it that the file holds: 10 of them, in the set of 2016 30
_DEVELOPMENT = re.compile(r"audio/[a-z]+\d+_(\d+)_(\d+)\.\w+")
_SECONDS = 10


@dataclass(frozen=True, slots=True)
class Scene:
    """A row of a table: a file, its label as published, and the fold that tests on it."""

    line: int
    file: str
    label: str
    fold: int | None


def table_in(folder: Path) -> Path | None:
    """The table of a folder, or the folder itself where it holds that of each set; else None."""
    found = _tables(folder)
    return folder if len(found) > 1 else next(iter(found), None)


def is_table(path: Path) -> bool:
    """Whether a file is a table of the data set, or a folder holds one."""
    if path.is_dir():
        return table_in(path) is not None
    try:
        cells = first_row(path).split("\t")
    except UserError:
        return False  # no text, so no table of any kind
    piece = _DEVELOPMENT.fullmatch(cells[0])
    if len(cells) not in (2, 3) or not cells[0].startswith("audio/") or cells[1] not in LABELS:
        return False
    return piece is None or int(piece[2]) - int(piece[1]) == _SECONDS


def folder_of(path: Path) -> Path:
    """The data set's folder, where a table lies as it is published."""
    if path.is_dir():
        return path
    return path.parent.parent if path.parent.name == SETUP else path.parent


def read(path: Path) -> Iterator[Scene]:
    """Rows of a table, or of both tables below a folder; folds are those of evaluation_setup.

    The evaluation set has no folds. Raises UserError for a row that is none, a label that is not
    one of the 15, and a fold list that contradicts the table or another.
    """
    for table in _tables(path) if path.is_dir() else [path]:
        folds = _folds(folder_of(table) / SETUP)
        rows = list(_rows(table, LABELS))
        labels = {file: label for _, file, label in rows}
        for file, (_, label, where) in folds.items():
            if file not in labels:
                raise UserError(f"{where}: {file} is not a clip of {table}; mend one of the two")
            if label and label != labels[file]:
                raise UserError(f"{where}: {file} is {label!r}, but {table} says {labels[file]!r}")
        without = [file for file in labels if file not in folds]
        if folds and without:
            print(
                f"{len(without):,} of {len(labels):,} clips of {table} are in the test list of no "
                f"fold (the first: {without[0]}); they have no fold",
                file=sys.stderr,
            )
        for line, file, label in rows:
            yield Scene(line, file, label, folds[file][0] if file in folds else None)


def _tables(folder: Path) -> list[Path]:
    """The first table of a folder, or of each of the two published folders in it."""
    for place in ((folder,), [folder / name for name in _FOLDERS]):
        named = [next(filter(is_table, _files(one)), None) for one in place]
        if found := [table for table in named if table is not None]:
            return found
    return []


def _files(folder: Path) -> list[Path]:
    return [folder / name for name in _TABLES if (folder / name).is_file()]


def _folds(setup: Path) -> dict[str, tuple[int, str, str]]:
    """File -> its fold, its label there (or nothing), and where that stands; of the test lists."""
    found: dict[str, tuple[int, str, str]] = {}
    for fold in range(1, FOLDS + 1):
        lists = [setup / f"fold{fold}_{name}.txt" for name in ("evaluate", "test")]
        path = next((path for path in lists if path.is_file()), None)
        for line, file, label in _rows(path, ("", *LABELS)) if path else ():
            where = f"{path} line {line}"
            if file in found:
                raise UserError(
                    f"{where}: {file} is tested in fold {fold} and in fold {found[file][0]}; keep "
                    "one"
                )
            found[file] = (fold, label, where)
    return found


def _rows(path: Path, labels: tuple[str, ...]) -> Iterator[tuple[int, str, str]]:
    """(line number, file, label or nothing) of a table or a list of files."""
    for line, cells in csv_cells(path):
        file, label, *more = (*(cell.strip() for cell in cells), "")
        if not file or len(more) > 2:
            raise UserError(f"{path} line {line}: {cells} is not a file and its scene; mend it")
        if label not in labels:
            raise UserError(
                f"{path} line {line}: {file} has the label {label!r}, which is none of {NAME}'s "
                f"{len(LABELS)}; mend the row"
            )
        yield line, file, label
