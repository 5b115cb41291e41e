"""`pivot check-overlap A B`: which clips of A are in B, by what, and what could not be compared."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path

from pivot import __version__
from pivot.data.about import write_about
from pivot.data.overlap import NAME, Overlap, counts_of, lacking, nothing_compared, overlap
from pivot.data.recordings import KINDS
from pivot.errors import DataError, SettingsError
from pivot.settings import CheckOverlap
from video_prep.files import whole_file

COLUMNS = ("id", "other_id", "by")


def run(settings: CheckOverlap) -> int:
    """Compare, say what was compared, write the shared clips; status 1 where there are some.

    Raises DataError where nothing can be compared: that is not "no overlap".
    """
    if settings.out is not None and Path(settings.out).suffix.lower() != ".csv":
        raise SettingsError(f"--out {settings.out} must end in .csv")
    found = overlap(settings.a, settings.b)
    if not found.compared:
        raise DataError(nothing_compared(found))
    print("\n".join(_lines(found)))
    if settings.out is not None:
        _write(Path(settings.out), found, settings)
    return int(bool(found.of_a.any()))


def _lines(found: Overlap) -> Iterator[str]:
    a, b = found.a, found.b
    for name, side in (("A", a), ("B", b)):
        yield f"{name} {side.path}: {len(side):,} clips"
    for kind, one in found.kinds.items():
        if kind == NAME:
            yield f"name alone: {one.a:,} clips of A are called as {one.b:,} of B; look at them"
        else:
            yield (
                f"{KINDS[kind]} ({one.known_a:,} of A and {one.known_b:,} of B have one): "
                f"{one.a:,} clips of A are in B, {one.b:,} of B in A, {one.ids:,} different"
            )
    for kind, why in lacking(a, b).items():
        yield f"not compared by {KINDS[kind]}: {why}"
    for name, side, lone in (("A", a, found.lone_a), ("B", b, found.lone_b)):
        if lone:
            yield f"not compared at all: {lone:,} of {len(side):,} clips of {name}"
    shared_a, shared_b = found.of_a.sum(), found.of_b.sum()
    yield (
        f"shared: {shared_a:,} of {len(a):,} clips of A, {shared_b:,} of {len(b):,} of B"
        + (f" ({counts_of(found)})" if shared_a else "")
    )


def _write(path: Path, found: Overlap, settings: CheckOverlap) -> None:
    """A row a shared clip of A; its counts and settings in FILE.about.json."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(found.rows())
    with whole_file(path) as file:
        file.write(text.getvalue().encode())
    write_about(path, found.facts() | {"settings": settings.model_dump(), "pivot": __version__})
