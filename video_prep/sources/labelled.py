"""Data sets as they are published, a table and its files: ESC-50, FSD50K, Clotho and others."""

from __future__ import annotations

import csv
import re
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

from video_prep.errors import UserError
from video_prep.sources import fsd50k, macs, scenes, wavcaps
from video_prep.sources.clip import AUDIO, VIDEO, Clip
from video_prep.sources.faults import MISSING, report, two_files
from video_prep.sources.files import files_below, readable, stem_of, suffix_of
from video_prep.sources.official import DataSet, data_set, splits_of
from video_prep.sources.ontology import LabelNames
from video_prep.sources.recordings import clotho_sounds
from video_prep.sources.rows import delimiter_of, first_row, table_cells
from video_prep.sources.segments import refuse_same
from video_prep.sources.table_row import Row

_ESC50 = ("filename", "fold", "target", "category")
_URBANSOUND8K = ("slice_file_name", "fold", "classID", "class")
_CAPTION = re.compile(r"caption_\d+")
_FOLD_FOLDER = re.compile(r"fold(\d+)")
_SPLIT_AFFIX = re.compile(r"^(clotho_audio_|TUT-acoustic-scenes-2017-)|_flac$")
# fold-source-take-target and source-class-occurrence-slice
_ESC50_NAME = re.compile(r"(?P<fold>\d+)-\d+-[A-Z]-(?P<target>\d+)")
_URBANSOUND8K_NAME = re.compile(r"\d+-(?P<target>\d+)-\d+-\d+")
_FILES = (
    "meta/esc50.csv", "esc50.csv", "metadata/UrbanSound8K.csv", "UrbanSound8K.csv",
    "clotho_captions_*.csv", "FSD50K.ground_truth/dev.csv", "FSD50K.ground_truth/eval.csv",
    "MACS.yaml", "json_files/*/*_final*.json",
)  # fmt: skip
SUFFIXES = {".csv", ".tsv", ".txt", ".json", *macs.SUFFIXES}


# ---- which data set ------------------------------------------------------------------------


def name_of(path: Path) -> str | None:
    """Name of the data set whose table `path` is, by its content, or None.

    The two sets of TUT Acoustic Scenes together are a folder.
    """
    if scenes.is_table(path):
        return scenes.NAME
    if path.suffix.lower() == ".json":
        return wavcaps.NAME if wavcaps.is_table(path) else None
    if path.suffix.lower() in macs.SUFFIXES:
        return macs.NAME if macs.is_table(path) else None
    line = first_row(path)
    try:
        cells = next(csv.reader([line], delimiter=delimiter_of(line)), [])
    except csv.Error:
        return None
    names = {cell.strip() for cell in cells}
    if "path" in names:  # a list of the user's own
        return None
    if {"filename", "category"} <= names:
        return "ESC-50"
    if "slice_file_name" in names:
        return "UrbanSound8K"
    if "file_name" in names and any(map(_CAPTION.fullmatch, names)):
        return "Clotho"
    if set(fsd50k.COLUMNS) <= names:
        return fsd50k.NAME
    return None


def table_in(folder: Path) -> Path | None:
    """The table of one of the data sets in its folder, or None.

    Raises UserError where the folder has several, or where the table's columns are not those.
    """
    found = sorted(path for name in _FILES for path in folder.glob(name) if path.is_file())
    if len(found) > 1:
        names = ", ".join(path.relative_to(folder).as_posix() for path in found)
        raise UserError(f"{folder} holds several tables of clips ({names}); give one of them")
    for path in found:
        if name_of(path) is None:
            raise UserError(
                f"{path} has other columns than ESC-50, UrbanSound8K, Clotho or FSD50K "
                f"({first_row(path)[:80]!r}); put the published file there, or rename it"
            )
        return path
    return scenes.table_in(folder)


def folder_of(path: Path) -> Path:
    """The data set's folder, where the table lies as it is published."""
    name = name_of(path)
    if name in _FOLDERS:
        return _FOLDERS[name](path)
    return path.parent.parent if path.parent.name in {"meta", "metadata"} else path.parent


# ---- tables --------------------------------------------------------------------------------


def _esc50(path: Path) -> Iterator[Row]:
    yield from _classes(path, "ESC-50", _ESC50, 5, _ESC50_NAME)


def _urbansound8k(path: Path) -> Iterator[Row]:
    yield from _classes(path, "UrbanSound8K", _URBANSOUND8K, 10, _URBANSOUND8K_NAME)


def _classes(
    path: Path, name: str, columns: tuple[str, ...], folds: int, pattern: re.Pattern[str]
) -> Iterator[Row]:
    """Rows of a table of files, folds, numbers of classes and their names.

    Names decide: a number with two names, or a name with two numbers, is an error, and so is a
    file whose name says another fold or class than its row.
    """
    numbers: dict[str, tuple[str, int]] = {}  # number -> name, line; and the other way round
    names: dict[str, tuple[str, int]] = {}
    file_key, fold_key, target_key, name_key = columns
    for line, row in table_cells(path, name, columns):
        where = f"{path} line {line}"
        file, fold = row[file_key].rstrip(), row[fold_key].strip()
        target, label = row[target_key].strip(), row[name_key].strip()
        if fold not in map(str, range(1, folds + 1)):
            raise UserError(f"{where}: fold {fold!r} of {file} is not one of {name}'s 1 to {folds}")
        for known, key, value in ((numbers, target, label), (names, label, target)):
            before, first = known.setdefault(key, (value, line))
            if before != value:
                raise UserError(
                    f"{where}: {target_key} {target} is {label!r}, but line {first} says "
                    f"{key!r} is {before!r}; mend the table"
                )
        said = pattern.fullmatch(stem_of(file))
        for key, value in said.groupdict().items() if said else ():
            given = fold if key == "fold" else target
            if value != given:
                column = fold_key if key == "fold" else target_key
                raise UserError(
                    f"{where}: {column} is {given}, but the name of {file} says {value}; mend the "
                    "row"
                )
        yield Row(line, file, (label,), fold=int(fold))


def _clotho(path: Path) -> Iterator[Row]:
    sounds = clotho_sounds(path)  # of clotho_metadata_X.csv, where it lies beside the captions
    for line, row in table_cells(path, "Clotho", ("file_name",)):
        captions = (cell.strip() for key, cell in row.items() if _CAPTION.fullmatch(key))
        file = row["file_name"].rstrip()
        own = sounds.get(file.strip())
        yield Row(line, file, captions=tuple(filter(None, captions)), freesound=own)


def _scenes(path: Path) -> Iterator[Row]:
    for row in scenes.read(path):
        yield Row(row.line, row.file, (row.label,), fold=row.fold)


_FOLDERS: dict[str | None, Callable[[Path], Path]] = {
    scenes.NAME: scenes.folder_of,
    fsd50k.NAME: fsd50k.folder_of,
    wavcaps.NAME: wavcaps.folder_of,
}
_READERS: dict[str, Callable[[Path], Iterator[Row]]] = {
    "ESC-50": _esc50,
    "UrbanSound8K": _urbansound8k,
    "Clotho": _clotho,
    scenes.NAME: _scenes,
    fsd50k.NAME: fsd50k.read,
    macs.NAME: macs.read,
}


# ---- files ---------------------------------------------------------------------------------


def _rows(path: Path, found: DataSet, names: LabelNames | None) -> Iterator[Row]:
    if found.name == wavcaps.NAME:
        return wavcaps.read(path, found.split)
    if names is not None:
        return fsd50k.read(path, names)
    return _READERS[found.name](path)


def clips_of_table(
    path: Path, media: Path, suffixes: frozenset[str], names: LabelNames | None = None
) -> list[Clip]:
    """Clips of the table `path` in its order, with their files below `media`, in any sub-folder.

    A clip's id is its file's name without suffix and blanks around it; a file with another suffix
    (.flac for .wav) is taken where there is none of the very name. A row without a file becomes a
    clip with a fault; files that no row names are counted on stderr. Raises UserError for a wrong
    row, for a file that lies in another fold's folder than its row says, and where no clip has a
    file.
    """
    found = data_set(name_of(path) or "", path)
    rows = list(_rows(path, found, names))
    if not rows:
        raise UserError(f"{path} lists no clips; it has no row but its header")
    if not media.is_dir():
        raise UserError(f"--media {media} is not a folder; give the one with {found.name}'s files")
    media = media.absolute()
    others = {split for split in splits_of(found.name) if split != found.split}
    files = _files(media, suffixes, others if found.split else set())
    clips, first = [], dict[str, int]()
    for row in rows:
        clip_id = _id(row.file)
        refuse_same(path, first, clip_id, row.line)
        clips.append(_clip(path, row, clip_id, files.get(clip_id, []), media))
    report(path, clips, media, lambda: _hint(rows[0].file, files, suffixes))
    _say_extra(path, media, files, {clip.path for clip in clips if clip.fault is None})
    return clips


def _id(file: str) -> str:
    name = PurePosixPath(file).name
    return (stem_of(name) if suffix_of(name) in AUDIO | VIDEO else name).strip()


def _files(media: Path, suffixes: frozenset[str], others: set[str]) -> dict[str, list[str]]:
    """Id -> files below `media`, but for those in folders of other splits."""
    files: dict[str, list[str]] = defaultdict(list)
    for folder, names in files_below(media):
        place = Path(folder).relative_to(media)
        if others & {_SPLIT_AFFIX.sub("", part) for part in place.parts}:
            continue
        for name in sorted(names):
            if suffix_of(name) in suffixes | VIDEO:
                files[_id(name)].append((place / name).as_posix())
    return files


def _clip(path: Path, row: Row, clip_id: str, files: list[str], media: Path) -> Clip:
    """The clip of a row: its one file, or its fault."""
    name = PurePosixPath(row.file).name
    own = [file for file in files if PurePosixPath(file).name == name] or files
    own = [file for file in own if PurePosixPath(file).parent.name == f"fold{row.fold}"] or own
    fault = None
    if not own:
        fault = MISSING, f"no file is named {clip_id}"
    elif len(own) > 1:
        fault = two_files(clip_id, map(readable, own))
    else:
        folder = _FOLD_FOLDER.fullmatch(PurePosixPath(own[0]).parent.name)
        if folder and row.fold is not None and int(folder[1]) != row.fold:
            raise UserError(
                f"{path} line {row.line}: fold {row.fold}, but {own[0]} lies in {folder[0]}; mend "
                "the row or move the file"
            )
    return Clip(
        id=clip_id,
        path=media / (f"{clip_id}.*" if fault else own[0]),  # none such is there, or opened
        labels=row.labels,
        captions=row.captions,
        source=row.file if fault else readable(own[0]),
        fault=fault,
        fold=row.fold,
        split=row.split,
        freesound=row.freesound,
        youtube=row.youtube,
    )


def _hint(wanted: str, files: dict[str, list[str]], suffixes: frozenset[str]) -> str:
    there = sorted(name for names in files.values() for name in names)[:3]
    if there:
        return f"looked for {wanted}, ...; there are {', '.join(map(readable, there))}, ..."
    if suffixes <= VIDEO:
        return "it holds no video file; pivot prepare-audio takes sounds"
    return f"it holds no media file (wanted: {wanted}, ...); --media names their folder"


def _say_extra(path: Path, media: Path, files: dict[str, list[str]], taken: set[Path]) -> None:
    names = sorted(name for names in files.values() for name in names)
    extra = [name for name in names if media / name not in taken]
    if extra:
        print(
            f"files in {media} that no row of {path} names are left out: {len(extra):,} "
            f"(the first: {readable(extra[0])})",
            file=sys.stderr,
        )
