"""Clips that no file belongs to: a row with its reason each, and one line for all of them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from video_prep.errors import UserError
from video_prep.sources.clip import Clip

MISSING = "missing_file"
TWO_FILES = "two_files"


def two_files(what: str, names: Iterable[str]) -> tuple[str, str]:
    """Fault of a clip that more than one file could be; none of them is chosen."""
    first, second, *more = sorted(names)
    others = f" (and {len(more)} more)" if more else ""
    return TWO_FILES, f"{first} and {second}{others} are both {what}; keep one"


def report(path: Path, clips: list[Clip], media: Path, hint: Callable[[], str]) -> None:
    """Say on stderr how many clips of the list `path` have no file, or more than one, in `media`.

    UserError where none has a file, with `hint`: what was looked for, and what is there.
    """
    faults = [clip for clip in clips if clip.fault is not None]
    missing = [clip for clip in faults if clip.fault and clip.fault[0] == MISSING]
    if missing and len(missing) == len(clips):
        raise UserError(
            f"none of the {len(clips):,} clips of {path} has a file in {media}: {hint()}"
        )
    if missing:
        print(
            f"{len(missing):,} of {len(clips):,} clips have no file in {media} "
            f"(the first: {missing[0].id})",
            file=sys.stderr,
        )
    unclear = [clip for clip in faults if clip.fault and clip.fault[0] != MISSING]
    if unclear and unclear[0].fault:
        print(
            f"{len(unclear):,} of {len(clips):,} clips have no file that is theirs alone "
            f"(the first: {unclear[0].fault[1]})",
            file=sys.stderr,
        )
