"""Reads manifest and indexes of a folder that a prepare command made: which clips, and where."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from video_prep.errors import UserError
from video_prep.storage.local import REDO, LocalFiles
from video_prep.storage.places import NO_SOUND, Places
from video_prep.storage.remote import RemoteFiles

FORMAT = "video_prep shards 2"
MANIFEST, PLAN = "manifest.json", "plan.json"


def read_json(path: Path) -> dict[str, Any]:
    """Read one JSON object; a file that is missing or damaged is a UserError."""
    (data,) = LocalFiles(str(path.parent)).whole([path.name])
    return json_object(data, str(path), REDO)


def json_object(data: bytes, place: str, mend: str) -> dict[str, Any]:
    """The JSON object in `data`; UserError that names its place and what to do."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{place} cannot be read ({error}); {mend}") from None
    if not isinstance(value, dict):
        raise UserError(f"{place} does not hold a JSON object; {mend}")
    return value


def content_fingerprint(hashes: list[str]) -> str:
    """Fingerprint of the content of a folder: sha256 over the sha256 of every tar, in order."""
    return hashlib.sha256("\n".join(hashes).encode()).hexdigest()


def checked_manifest(data: bytes, path: str, mend: str) -> dict[str, Any]:
    """The manifest of the folder `path`; UserError where it is damaged or of another format."""
    manifest = json_object(data, f"{path}/{MANIFEST}", mend)
    if manifest.get("format") != FORMAT:
        raise UserError(
            f"{path}/{MANIFEST} is of format {manifest.get('format')!r}, not "
            f"{FORMAT!r}; prepare the clips again with this version"
        )
    if lacking := {"plan", "num_frames", "shards"} - manifest.keys():
        raise UserError(f"{path}/{MANIFEST} lacks {sorted(lacking)[0]}; {mend}")
    return manifest


def read_places(
    path: str, files: LocalFiles | RemoteFiles, manifest: dict[str, Any], sound: bool
) -> Places:
    """Ids and places of the usable clips, in manifest order; every shard's JSON is read once."""
    return _Indexes(path, files, manifest).places(sound)


class _Indexes:
    """The JSON files beside the tars."""

    def __init__(
        self, path: str, files: LocalFiles | RemoteFiles, manifest: dict[str, Any]
    ) -> None:
        self._path, self._files, self._manifest = path, files, manifest
        self._num_frames = int(manifest["num_frames"])

    def places(self, sound: bool) -> Places:
        """One shard after the other: its JSON is soon forgotten."""
        entries = self._manifest["shards"]
        tars = [f"{entry['name']}.tar" for entry in entries]
        sizes = self._files.sizes(tars)
        texts = self._files.whole([f"{entry['name']}.json" for entry in entries])
        nothing = np.empty((0, self._num_frames + 2, 2), np.int64)
        found: list[tuple[list[str], np.ndarray]] = [] if entries else [([], nothing)]
        for entry, size, text in zip(entries, sizes, texts, strict=True):
            try:
                found.append(self._read(entry, size, text))
            except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
                raise self._wrong(entry["name"], f"has a damaged index ({error!r})") from error
        fingerprint = content_fingerprint([entry["sha256"] for entry in entries])
        return Places.of_tars(tars, found, fingerprint, sound, self._manifest)

    def _read(
        self, entry: dict[str, Any], size: int | None, text: bytes
    ) -> tuple[list[str], np.ndarray]:
        """Ids of the usable clips of a shard and places (clips, frames + 2, 2) of their members."""
        name = entry["name"]
        index = json_object(text, f"{self._path}/{name}.json", self._files.mend)
        if index.get("format") != FORMAT or index.get("plan") != self._manifest["plan"]:
            raise self._wrong(name, f"belongs to other settings than {self._path}")
        if size is not None and size != index["bytes"]:
            raise self._wrong(name, f"has {size} bytes, not {index['bytes']}")
        if index["sha256"] != entry["sha256"]:
            raise self._wrong(name, "is not the one in manifest.json")
        ids, flat = [], []
        for row in index["rows"]:
            if row["status"] != "ok":
                continue
            ids.append(row["id"])
            places = [(place[0], place[1]) for place in row["members"].values()]
            if len(places) == self._num_frames + 1:
                places.insert(self._num_frames, NO_SOUND)
            if len(places) != self._num_frames + 2:
                raise self._wrong(name, f"holds {len(places)} members of clip {row['id']!r}")
            flat += places
        found = np.array(flat, np.int64).reshape(len(ids), self._num_frames + 2, 2)
        if (found < 0).any():
            raise self._wrong(name, "has a damaged index (a place before its beginning)")
        return ids, found

    def _wrong(self, name: str, what: str) -> UserError:
        return UserError(f"{self._path}/{name}.tar {what}; {self._files.mend}")
