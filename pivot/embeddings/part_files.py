"""Files of the parts of a store: whole, named by their inputs, followed from one to the next."""

from __future__ import annotations

import io
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pivot.errors import StoreError
from video_prep.files import write_whole

PART = re.compile(r"part-(\d{9})-(\d{9})\.npz$")


def write_part(folder: Path, start: int, end: int, **arrays: NDArray[Any]) -> None:
    """Keep what inputs start..end-1 came to."""
    memory = io.BytesIO()
    np.savez(memory, **arrays)  # type: ignore[arg-type]
    write_whole(folder / f"part-{start:09d}-{end:09d}.npz", memory.getvalue())


def read_part(path: Path, *names: str) -> list[NDArray[Any]]:
    """Arrays of one file of a part."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as data:
            return [data[name] for name in names]
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise StoreError(f"{path} is missing or damaged; delete it and embed again") from error


def chain(inputs: range, names: list[str]) -> list[str]:
    """Files of parts that follow one another from the start of `inputs`, as far as they reach.

    Where a part was done twice its files overlap, so it is a path that is looked for.
    """
    came: dict[int, tuple[int, str] | None] = {inputs.start: None}  # end -> start, file
    for start, end, name in sorted((*_bounds(name), name) for name in names if PART.match(name)):
        if start in came and end <= inputs.stop:
            came.setdefault(end, (start, name))
    path, at = [], came[max(came)]
    while at is not None:
        path.append(at[1])
        at = came[at[0]]
    return path[::-1]


def reached(inputs: range, names: list[str]) -> int:
    """First of the inputs that is not done."""
    path = chain(inputs, names)
    return _bounds(path[-1])[1] if path else inputs.start


def listed(folder: Path) -> list[str]:
    """Names in a folder; none where it is not there."""
    return [path.name for path in folder.iterdir()] if folder.is_dir() else []


def _bounds(name: str) -> tuple[int, int]:
    found = PART.match(name)
    assert found
    return int(found[1]), int(found[2])
