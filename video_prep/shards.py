"""Reads a prepared folder at random: frames, sounds and facts of its clips, by number or id."""

from __future__ import annotations

import hashlib
import io
import json
import os
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from video_prep.errors import UserError

FORMAT = "video_prep shards 1"
MOST_OPEN = 256  # tar files kept open by a process; further ones are opened for each read
REDO = "run the same prepare command again, which redoes what is missing or damaged"


def read_json(path: Path) -> dict[str, Any]:
    """Read one JSON object; a file that is missing or damaged is a UserError."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; {REDO}") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}); {REDO}") from None
    if not isinstance(value, dict):
        raise UserError(f"{path} does not hold a JSON object; {REDO}")
    return value


def content_fingerprint(hashes: list[str]) -> str:
    """Fingerprint of the content of a folder: sha256 over the sha256 of every tar, in order."""
    return hashlib.sha256("\n".join(hashes).encode()).hexdigest()


class ShardFolder:
    """A finished folder of shards; opening it reads the index files only.

    Clips are in manifest order and only usable ones count. Safe in threads, after fork and through
    pickle: every read is a `pread` on a file opened where it is needed.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.manifest = self._read_manifest()
        self.num_frames = int(self.manifest["num_frames"])
        self.ids: list[str] = []
        self._keys: list[str] = []
        self._tars: list[Path] = []
        self._files: dict[int, int] = {}
        self._read_indexes()
        self._numbers = {clip_id: i for i, clip_id in enumerate(self.ids)}
        if not self.ids:
            raise UserError(
                f"{self.path} holds no usable clip; see {self.path / 'failures.jsonl'} for reasons"
            )

    # ---- opening ---------------------------------------------------------------------------

    def _read_manifest(self) -> dict[str, Any]:
        if not self.path.is_dir():
            raise UserError(
                f"{self.path} is not a folder of shards; make one with pivot prepare-frames"
            )
        path = self.path / "manifest.json"
        if not path.exists():
            begun = (self.path / "plan.json").exists()
            raise UserError(
                f"{self.path} is not finished (no manifest.json); run its prepare command again"
                if begun
                else f"{self.path} holds no manifest.json; make shards with pivot prepare-frames"
            )
        manifest = read_json(path)
        if manifest.get("format") != FORMAT:
            raise UserError(
                f"{path} is of format {manifest.get('format')!r}, not {FORMAT!r}; "
                "prepare the clips again with this version"
            )
        return manifest

    def _read_indexes(self) -> None:
        shards: list[int] = []
        places: list[list[tuple[int, int]]] = []
        hashes = []
        for number, entry in enumerate(self.manifest["shards"]):
            index = self._read_index(entry)
            hashes.append(index["sha256"])
            for row in index["rows"]:
                if row["status"] == "ok":
                    self.ids.append(row["id"])
                    self._keys.append(row["key"])
                    shards.append(number)
                    places.append([(place[0], place[1]) for place in row["members"].values()])
        members = self.num_frames + 2
        if any(len(place) != members for place in places):
            raise UserError(f"{self.path}: clips have unequal members; {REDO}")
        flat = np.fromiter(chain.from_iterable(chain.from_iterable(places)), np.int64)
        self._places = flat.reshape(len(places), members, 2)  # [clip, member, (offset, length)]
        self._shards = np.asarray(shards, np.int32)
        self.fingerprint = content_fingerprint(hashes)

    def _read_index(self, entry: dict[str, Any]) -> dict[str, Any]:
        tar = self.path / f"{entry['name']}.tar"
        index = read_json(self.path / f"{entry['name']}.json")
        if index.get("format") != FORMAT or index.get("plan") != self.manifest["plan"]:
            raise UserError(f"{tar} belongs to other settings than {self.path}; {REDO}")
        size = tar.stat().st_size if tar.exists() else None
        if size != index["bytes"] or index["sha256"] != entry["sha256"]:
            found = "is missing" if size is None else f"has {size} bytes, not {index['bytes']}"
            if size == index["bytes"]:
                found = "is not the one in manifest.json"
            raise UserError(f"{tar} {found}; {REDO}")
        self._tars.append(tar)
        return index

    # ---- reading ---------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self.ids)

    def index_of(self, clip_id: str) -> int:
        """Number of the clip with this id."""
        try:
            return self._numbers[clip_id]
        except KeyError:
            raise UserError(
                f"clip {clip_id!r} is not in {self.path}; see clips.jsonl there for what is"
            ) from None

    def facts(self, i: int) -> dict[str, Any]:
        """Facts of clip i: id, source, bounds, times of its frames, rates, labels, captions."""
        facts = json.loads(self._member(i, -1))
        if facts["id"] != self.ids[i]:
            raise UserError(f"{self._tar(i)} holds clip {facts['id']!r} at {self.ids[i]!r}; {REDO}")
        return dict(facts)

    def frame(self, i: int, k: int) -> bytes:
        """JPEG bytes of frame k of clip i."""
        if not 0 <= k < self.num_frames:
            raise UserError(f"{self.path} has {self.num_frames} frames a clip, no frame {k}")
        return self._member(i, k)

    def sound(self, i: int) -> tuple[np.ndarray, int]:
        """Sound of clip i: int16 (channels, samples) and its rate in Hz."""
        data = self._member(i, self.num_frames)
        try:
            wave, rate = soundfile.read(io.BytesIO(data), dtype="int16", always_2d=True)
        except soundfile.LibsndfileError as error:
            raise UserError(
                f"{self._tar(i)}: the sound of {self.ids[i]!r} is damaged ({error}); {REDO}"
            ) from error
        return np.ascontiguousarray(wave.T), int(rate)

    def labels(self, i: int) -> tuple[str, ...]:
        """Labels of clip i."""
        return tuple(self.facts(i)["labels"])

    def captions(self, i: int) -> tuple[str, ...]:
        """Captions of clip i."""
        return tuple(self.facts(i)["captions"])

    def _tar(self, i: int) -> Path:
        return self._tars[self._shards[i]]

    def _member(self, i: int, member: int) -> bytes:
        if not 0 <= i < len(self.ids):
            raise UserError(f"{self.path} has {len(self.ids)} clips, no clip number {i}")
        offset, length = (int(n) for n in self._places[i, member])
        number = int(self._shards[i])
        data = self._pread(number, offset, length)
        if len(data) != length:
            raise UserError(
                f"{self._tars[number]}: member {member} of {self._keys[i]} ends after {len(data)} "
                f"of {length} bytes; {REDO}"
            )
        return data

    def _pread(self, number: int, offset: int, length: int) -> bytes:
        file = self._files.get(number)
        if file is not None:
            return os.pread(file, length, offset)
        try:
            file = os.open(self._tars[number], os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
        except OSError as error:
            raise UserError(
                f"{self._tars[number]} cannot be opened: {error.strerror}; {REDO}"
            ) from error
        try:
            return os.pread(file, length, offset)
        finally:
            # never close a file that another thread may be reading: keep it, or it is only ours
            if len(self._files) >= MOST_OPEN or self._files.setdefault(number, file) != file:
                os.close(file)

    # ---- processes -------------------------------------------------------------------------

    def close(self) -> None:
        """Close the open files; the next read opens what it needs."""
        while self._files:
            os.close(self._files.popitem()[1])

    def __del__(self) -> None:
        if hasattr(self, "_files"):
            self.close()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_files": {}}
