"""An old shard that is written again: what of it is provably right and can be kept."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Set
from pathlib import Path
from typing import Any

from video_prep.keys import key_of, shard_name
from video_prep.shards import FORMAT
from video_prep.storage.seals import read_sealed


class OldShard:
    """The rows and members of shard `number` in `out` that a new one of the same plan may keep.

    The index is read at once, so it may be removed afterwards. Nothing is kept of a shard whose
    index is missing, damaged, or of another plan than the one with fingerprint `plan`. Failed
    clips with a reason in `retry` (`all`: every failed clip) are not kept either. No damage of
    the shard raises an error.
    """

    def __init__(self, out: Path, number: int, plan: str, retry: Set[str] = frozenset()) -> None:
        name = shard_name(number)
        self._tar = out / f"{name}.tar"
        self._retry = retry
        index = read_sealed(out / f"{name}.json") or {}
        if index.get("format") != FORMAT or index.get("plan") != plan:
            index = {}
        self.versions = _texts(index.get("versions"))  # of the tools that made it
        self._rows = _by_id(index.get("rows"))

    def row(self, clip_id: str) -> dict[str, Any] | None:
        """The row of a failed clip that stays failed; None where the clip must be tried."""
        row = self._rows.get(clip_id, {})
        texts = (row.get("reason"), row.get("error"))
        if row.get("status") != "failed" or not all(isinstance(text, str) for text in texts):
            return None
        if "all" in self._retry or row["reason"] in self._retry:
            return None
        return dict(row)

    def members(self, clip_id: str) -> tuple[dict[str, Any], dict[str, bytes]] | None:
        """Row (id, key, flags) and members (suffix -> bytes) of a usable clip.

        None unless the sha1 of every member is the one in the index.
        """
        row = self._rows.get(clip_id, {})
        places = row.get("members")
        if row.get("status") != "ok" or row.get("key") != key_of(clip_id):
            return None
        if not isinstance(places, dict) or not isinstance(row.get("flags"), list):
            return None
        try:
            with self._tar.open("rb") as tar:
                data = {suffix: _member(tar.fileno(), place) for suffix, place in places.items()}
        except (OSError, ValueError, TypeError):
            return None
        if not data:
            return None
        return {key: row[key] for key in row if key not in {"status", "members"}}, data


def _texts(versions: Any) -> dict[str, str]:
    """Versions by name, or none where they are not texts."""
    right = isinstance(versions, dict) and all(isinstance(v, str) for v in versions.values())
    return dict(versions) if right else {}


def _by_id(rows: Any) -> dict[str, dict[str, Any]]:
    """Rows by their id; those that are no row, or that share an id, are left out."""
    found: dict[str, dict[str, Any]] = {}
    twice = set()
    for row in rows if isinstance(rows, list) else ():
        clip_id = row.get("id") if isinstance(row, dict) else None
        if not isinstance(clip_id, str):
            continue
        if clip_id in found:
            twice.add(clip_id)
        found[clip_id] = row
    return {clip_id: row for clip_id, row in found.items() if clip_id not in twice}


def _member(file: int, place: Any) -> bytes:
    """Bytes at [offset, length, sha1]; raises ValueError or TypeError where they are not those."""
    offset, length, sha1 = place
    if not 0 <= offset <= offset + length <= os.fstat(file).st_size:
        raise ValueError(f"no {length} bytes at {offset}")
    data = os.pread(file, length, offset)
    if hashlib.sha1(data, usedforsecurity=False).hexdigest() != sha1:
        raise ValueError(f"{length} bytes at {offset} have another sha1")
    return data
