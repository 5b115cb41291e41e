"""Stops a training on clips that are in a set which it is measured on, unless allowed by name."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pivot.data.overlap import Overlap, bare, counts_of, nothing_compared, overlap
from pivot.data.recordings import Recordings, form_of_shards, recordings, recordings_of_shards
from pivot.errors import DataError, SettingsError
from pivot.settings import FitSettings
from video_prep.shards import ShardFolder
from video_prep.storage.remote import is_url


def refuse_overlap(
    shards: ShardFolder,
    clips: Sequence[int],
    settings: FitSettings,
    more: Sequence[str | ShardFolder] = (),
) -> list[dict[str, Any]]:
    """Stop a training whose clips (numbers in `shards`) are in a set that it is measured on.

    The sets are `settings.held_out` and `more`, those that the command itself measures. Raises
    DataError with the count, unless `settings.allow_overlap` names the set, and where a set of
    `held_out` cannot be compared; SettingsError for a name that is none of them. Returns the
    counts of the sets that the settings name, for results.json.
    """
    sets = {_path(one): one for one in (*settings.held_out, *more)}
    allowed = _allowed(settings.allow_overlap, list(sets))
    if not sets:
        return []
    training = recordings_of_shards(shards, sorted(set(clips)))
    named = {_path(one) for one in settings.held_out} | allowed
    facts = []
    for path, one in sets.items():
        found = overlap(training, _held_out(one, shards))
        named_alike = _names_known(shards, found.b)
        compared, shared = found.compared or named_alike, int(found.of_a.sum())
        if shared and path not in allowed:
            raise DataError(_leak(found, shared))
        if not compared and path in named - allowed:
            raise DataError(f"{nothing_compared(found)}; or --allow-overlap {path}")
        if found.lone_a and not named_alike:
            print(
                f"overlap with {path}: {found.lone_a:,} of {len(training):,} training clips could "
                "not be compared with it; pivot check-overlap says why",
                file=sys.stderr,
            )
        if path in named:
            facts.append(found.facts() | {"compared": compared, "allowed": path in allowed})
    return facts


def _path(one: str | ShardFolder) -> str:
    path = one.path if isinstance(one, ShardFolder) else one
    return path.rstrip("/") if is_url(path) else str(Path(path))


def _allowed(names: Sequence[str], sets: Sequence[str]) -> set[str]:
    found = set()
    for name in names:
        those = [path for path in sets if name.rstrip("/") in (path, Path(path).name)]
        if not those:
            listed = ", ".join(sets) or "none"
            raise SettingsError(f"--allow-overlap {name} is no held-out set; there are: {listed}")
        found.update(those)
    return found


def _held_out(one: str | ShardFolder, shards: ShardFolder) -> Recordings:
    if isinstance(one, ShardFolder):
        return recordings_of_shards(one)
    return recordings(one, form_of_shards(shards))


def _names_known(shards: ShardFolder, held: Recordings) -> bool:
    """Whether a list speaks of clips of these shards, trained on or not."""
    return not set(bare(shards.ids)).isdisjoint(bare(held.names))


def _leak(found: Overlap, shared: int) -> str:
    return (
        f"{shared:,} of {len(found.a):,} training clips of {found.a.path} are in the held-out "
        f"{found.b.path} ({counts_of(found)}; the first: {next(found.rows())[0]!r}); leave them "
        f"out (pivot check-overlap lists them), or --allow-overlap {found.b.path}"
    )
