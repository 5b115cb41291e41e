"""Leaves clips out that other lists name: by Freesound or YouTube id, by sound, or by name."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pivot.data.overlap import counts_of, nothing_compared, overlap
from pivot.data.pairs import Pairs, pairs_of_rows
from pivot.data.recordings import (
    Recordings,
    form_of_shards,
    recordings,
    recordings_of_clips,
    recordings_of_shards,
)
from pivot.errors import DataError
from video_prep.index import Clip
from video_prep.shards import ShardFolder


def excluded(
    clips: Recordings, lists: Sequence[str], shards: ShardFolder | None = None
) -> NDArray[np.bool_]:
    """Which clips are in one of the lists (len(clips),); a line on stderr counts those of each.

    A list is anything that `recordings` reads; folders of sounds are heard as `shards` keep them.
    Raises DataError for a list that cannot be compared with the clips, and where none is left.
    """
    out = np.zeros(len(clips), np.bool_)
    form = None if shards is None else form_of_shards(shards)
    for path in lists:
        found = overlap(clips, recordings(path, form))
        if not found.compared:
            raise DataError(f"--exclude {path}: {nothing_compared(found)}")
        counts = counts_of(found)
        print(
            f"--exclude {path}: {int(found.of_a.sum()):,} of {len(clips):,} clips of {clips.path} "
            f"are in it{f' ({counts})' if counts else ''}",
            file=sys.stderr,
        )
        out |= found.of_a
    if out.all():
        raise DataError(f"--exclude leaves no clip of {clips.path}; name fewer lists")
    return out


def clips_without(source: str, clips: list[Clip], lists: Sequence[str]) -> list[Clip]:
    """The clips that a prepare command found in `source`, but for those in one of the lists."""
    out = excluded(recordings_of_clips(source, clips), lists)
    return [clip for clip, left in zip(clips, out, strict=True) if not left]


def numbers_without(shards: ShardFolder, numbers: Sequence[int], lists: Sequence[str]) -> list[int]:
    """Those of the clips of these numbers in shards that are in none of the lists."""
    if not lists:
        return list(numbers)
    own = sorted(set(numbers))
    out = excluded(recordings_of_shards(shards, own), lists, shards)
    kept = {i for i, left in zip(own, out, strict=True) if not left}
    return [i for i in numbers if i in kept]


def pairs_without(pairs: Pairs, shards: ShardFolder, lists: Sequence[str]) -> Pairs:
    """The pairs whose clips are in none of the lists."""
    if not lists:
        return pairs
    numbers = [shards.index_of(clip) for clip in pairs.audio_ids]
    kept = set(numbers_without(shards, numbers, lists))
    return pairs_of_rows(pairs, [row for row, i in enumerate(numbers) if i in kept])
