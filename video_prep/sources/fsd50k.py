"""FSD50K as it is published: dev.csv and eval.csv, and the folder of sounds that each names."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from video_prep.errors import UserError
from video_prep.sources.ontology import LabelNames
from video_prep.sources.recordings import freesound_id
from video_prep.sources.rows import csv_cells, table_cells
from video_prep.sources.table_row import Row

# Fonseca et al., FSD50K, 2022; zenodo.org/records/4060432: 200 classes, any number a clip
NAME = "FSD50K"
COLUMNS = ("fname", "labels", "mids")
SPLITS = ("train", "val")  # in dev.csv's fourth column; eval.csv has none, and is the test set
_GROUND_TRUTH = "FSD50K.ground_truth"
_SOUNDS = {"dev": "FSD50K.dev_audio", "eval": "FSD50K.eval_audio"}


def folder_of(path: Path) -> Path:
    """The folder with the sounds of dev.csv or eval.csv, or the data set's where there is none."""
    root = path.parent.parent if path.parent.name == _GROUND_TRUTH else path.parent
    sounds = root / _SOUNDS.get(path.stem, "")
    return sounds if sounds.is_dir() else root


def read(path: Path, names: LabelNames | None = None) -> Iterator[Row]:
    """Rows of dev.csv or eval.csv; labels by `names`, of their ids, or else as they are written.

    Raises UserError for a row that is none: a name that is no Freesound id, other numbers of labels
    and ids, a label that vocabulary.csv beside the table does not have, another split.
    """
    known = _vocabulary(path.with_name("vocabulary.csv"))
    for line, row in table_cells(path, NAME, COLUMNS):
        where = f"{path} line {line}"
        file = row["fname"].strip()
        if freesound_id(file) is None:
            raise UserError(f"{where}: fname {file!r} is not a Freesound id such as 64760")
        labels, ids = (tuple(_parts(row[key])) for key in ("labels", "mids"))
        if len(labels) != len(ids):
            raise UserError(f"{where}: {len(labels)} labels of {file}, but {len(ids)} mids")
        for label, mid in zip(labels, ids, strict=True):
            if known and known.get(label) != mid:
                raise UserError(
                    f"{where}: label {label!r} ({mid}) of {file} is not in vocabulary.csv beside "
                    "the table; mend one of the two"
                )
        split = row.get("split", "").strip() if "split" in row else "test"
        if "split" in row and split not in SPLITS:
            raise UserError(f"{where}: split {split!r} of {file} is not one of {', '.join(SPLITS)}")
        yield Row(
            line, file, names(ids) if names else labels, split=split, freesound=freesound_id(file)
        )


def _parts(cell: str) -> list[str]:
    return [part.strip() for part in cell.split(",") if part.strip()]


def _vocabulary(path: Path) -> dict[str, str]:
    """Label -> its id, of vocabulary.csv: number, label, id; nothing without the file."""
    found = {}
    for line, cells in csv_cells(path) if path.is_file() else ():
        if len(cells) != 3:
            raise UserError(f"{path} line {line}: {len(cells)} cells, not number, label and mid")
        found[cells[1].strip()] = cells[2].strip()
    return found
