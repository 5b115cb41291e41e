"""A row of a data set's table: one file, and what is said of it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Row:
    """A file by name, with or without suffix, and its labels, captions, fold and split."""

    line: int  # of the table, or number of the entry
    file: str
    labels: tuple[str, ...] = ()
    captions: tuple[str, ...] = ()
    fold: int | None = None
    split: str | None = None  # train, val or test, where the table tells it row by row
    # of the recording, where the file's name does not tell it
    freesound: str | None = None
    youtube: str | None = None
