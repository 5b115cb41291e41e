"""Reads a prepared folder at random: frames, sounds and facts of its clips, by number or id."""

from __future__ import annotations

import copy
import hashlib
import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from video_prep.errors import UserError
from video_prep.storage.local import REDO, LocalFiles
from video_prep.storage.remote import RemoteFiles, is_url

FORMAT = "video_prep shards 2"
FACTS_A_READ = 256
SOUND, FACTS = -2, -1  # members of a clip as `read` names them, beside its frames 0, 1, ...
_MATROSKA = b"\x1aE\xdf\xa3"  # the first bytes of a stream that was copied and not decoded
_NO_SOUND = (0, 0)  # place of a sound that is not there; every member begins after a header


def read_json(path: Path) -> dict[str, Any]:
    """Read one JSON object; a file that is missing or damaged is a UserError."""
    (data,) = LocalFiles(str(path.parent)).whole([path.name])
    return _object(data, str(path), REDO)


def _object(data: bytes, place: str, mend: str) -> dict[str, Any]:
    try:
        value = json.loads(data)
    except ValueError as error:
        raise UserError(f"{place} cannot be read ({error}); {mend}") from None
    if not isinstance(value, dict):
        raise UserError(f"{place} does not hold a JSON object; {mend}")
    return value


def content_fingerprint(hashes: list[str]) -> str:
    """Fingerprint of the content of a folder: sha256 over the sha256 of every tar, in order."""
    return hashlib.sha256("\n".join(hashes).encode()).hexdigest()


class ShardFolder:
    """A finished folder of shards, local or behind a URL; opening it reads the index files only.

    Clips are in manifest order and only usable ones count; with `sound` only those that have a
    sound. Safe in threads, after fork and through pickle.
    """

    def __init__(self, path: str | Path, sound: bool = False) -> None:
        self.path = str(path).rstrip("/") if is_url(path) else str(Path(path))
        self._files = RemoteFiles(self.path) if is_url(path) else LocalFiles(self.path)
        self.manifest = self._read_manifest()
        self.num_frames = int(self.manifest["num_frames"])
        self.ids: list[str] = []
        self.ids_without_sound: list[str] = []  # of all usable clips, also where `sound` is set
        self._tars = [f"{entry['name']}.tar" for entry in self.manifest["shards"]]
        self._numbers: dict[str, int] = {}
        self._read_indexes(sound)
        if not self.ids:
            why = f"no usable clip; see {self.path}/failures.jsonl for reasons"
            if self.ids_without_sound:
                why = f"no clip with sound: all {len(self.ids_without_sound)} are flagged no_audio"
            raise UserError(f"{self.path} holds {why}")

    # ---- opening ---------------------------------------------------------------------------

    def _read_manifest(self) -> dict[str, Any]:
        if not is_url(self.path) and not Path(self.path).is_dir():
            raise UserError(
                f"{self.path} is not a folder of shards; make one with pivot prepare-frames"
            )
        data = self._files.find("manifest.json")
        if data is None:
            raise UserError(
                f"{self.path} is not finished (no manifest.json); run its prepare command again"
                if self._files.find("plan.json") is not None
                else f"{self.path} holds no manifest.json; make shards with pivot prepare-frames"
            )
        manifest = _object(data, f"{self.path}/manifest.json", self._files.mend)
        if manifest.get("format") != FORMAT:
            raise UserError(
                f"{self.path}/manifest.json is of format {manifest.get('format')!r}, not "
                f"{FORMAT!r}; prepare the clips again with this version"
            )
        if lacking := {"plan", "num_frames", "shards"} - manifest.keys():
            raise UserError(
                f"{self.path}/manifest.json lacks {sorted(lacking)[0]}; {self._files.mend}"
            )
        return manifest

    def _read_indexes(self, sound: bool) -> None:
        """Ids and places of the clips, one shard after the other: its JSON is soon forgotten."""
        entries = self.manifest["shards"]
        sizes = self._files.sizes(self._tars)
        texts = self._files.whole([f"{entry['name']}.json" for entry in entries])
        members = self.num_frames + 2
        shards, places = [np.empty(0, np.int32)], [np.empty((0, members, 2), np.int64)]
        for number, (entry, size, text) in enumerate(zip(entries, sizes, texts, strict=True)):
            try:
                ids, found = self._read_index(entry, size, text)
            except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
                raise self._wrong(entry["name"], f"has a damaged index ({error!r})") from error
            heard = found[:, SOUND, 1] > 0
            self.ids_without_sound += [ids[i] for i in np.flatnonzero(~heard)]
            if sound and not heard.all():
                ids, found = [ids[i] for i in np.flatnonzero(heard)], found[heard]
            self.ids += ids
            shards.append(np.full(len(ids), number, np.int32))
            places.append(found)
        self._shards = np.concatenate(shards)
        self._places = np.concatenate(places)  # [clip, member, (offset, length)]
        self.fingerprint = content_fingerprint([entry["sha256"] for entry in entries])

    def _read_index(
        self, entry: dict[str, Any], size: int | None, text: bytes
    ) -> tuple[list[str], np.ndarray]:
        """Ids of the usable clips of a shard and places (clips, frames + 2, 2) of their members."""
        name = entry["name"]
        index = _object(text, f"{self.path}/{name}.json", self._files.mend)
        if index.get("format") != FORMAT or index.get("plan") != self.manifest["plan"]:
            raise self._wrong(name, f"belongs to other settings than {self.path}")
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
            if len(places) == self.num_frames + 1:
                places.insert(self.num_frames, _NO_SOUND)
            if len(places) != self.num_frames + 2:
                raise self._wrong(name, f"holds {len(places)} members of clip {row['id']!r}")
            flat += places
        found = np.array(flat, np.int64).reshape(len(ids), self.num_frames + 2, 2)
        if (found < 0).any():
            raise self._wrong(name, "has a damaged index (a place before its beginning)")
        return ids, found

    def _wrong(self, name: str, what: str) -> UserError:
        return UserError(f"{self.path}/{name}.tar {what}; {self._files.mend}")

    @property
    def dataset(self) -> dict[str, Any] | None:
        """The published data set that the clips were prepared from; None where of none.

        `name`; `split` and `official` (clips as published), None where the list's name does not
        tell; `listed`, clips of the list; `present`, usable ones.
        """
        facts, counts = self.manifest.get("dataset"), self.manifest.get("counts", {})
        if facts is None:
            return None
        return {**facts, "listed": counts["clips"], "present": counts["prepared"]}

    def find(self, name: str) -> bytes | None:
        """Content of a small file beside the shards, None where there is none of that name."""
        return self._files.find(name)

    # ---- reading ---------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def all_have_sound(self) -> bool:
        """Whether every clip that counts has a sound."""
        return bool((self._places[:, SOUND, 1] > 0).all())

    def index_of(self, clip_id: str) -> int:
        """Number of the clip with this id."""
        if not self._numbers:
            self._numbers = {clip: i for i, clip in enumerate(self.ids)}
        try:
            return self._numbers[clip_id]
        except KeyError:
            raise UserError(
                f"clip {clip_id!r} is not in {self.path}; see clips.jsonl there for what is"
            ) from None

    def only(self, numbers: Sequence[int]) -> ShardFolder:
        """The folder with the clips of these numbers alone, in this order, repeats kept.

        The fingerprint stays that of the whole folder, so that its stores still fit.
        """
        part = copy.copy(self)
        part.ids = [self.ids[i] for i in numbers]
        chosen = np.asarray(numbers, np.int64)
        part._shards, part._places, part._numbers = self._shards[chosen], self._places[chosen], {}
        return part

    def facts(self, i: int) -> dict[str, Any]:
        """Facts of clip i: id, source, bounds, times of its frames, rates, labels, captions."""
        return self._facts(i, self.read([(i, FACTS)])[0])

    def _facts(self, i: int, data: bytes) -> dict[str, Any]:
        place, mend = f"{self._tar(i)}, clip {self.ids[i]!r}", self._files.mend
        facts = _object(data, place, mend)
        if facts.get("id") != self.ids[i]:
            raise UserError(f"{place}: its facts are those of {facts.get('id')!r}; {mend}")
        return facts

    def frame(self, i: int, k: int) -> bytes:
        """JPEG bytes of frame k of clip i."""
        if not 0 <= k < self.num_frames:
            raise UserError(f"{self.path} has {self.num_frames} frames a clip, no frame {k}")
        return self.read([(i, k)])[0]

    def has_sound(self, i: int) -> bool:
        """Whether clip i has a sound; one without has the flag no_audio."""
        return bool(self._places[i, SOUND, 1])

    def sound(self, i: int) -> tuple[np.ndarray, int]:
        """Sound of clip i: int16 (channels, samples) and its rate in Hz.

        A clip without a sound is a UserError; `has_sound` tells, and `sound=True` leaves it out.
        """
        return self.decode_sound(i, self.read([(i, SOUND)])[0])

    def decode_sound(self, i: int, data: bytes) -> tuple[np.ndarray, int]:
        """Sound of clip i out of its member's bytes (FLAC, WAV or a copied stream)."""
        facts = self.facts(i) if data.startswith(_MATROSKA) else None
        try:
            if facts is not None:
                return _read_copied(data, facts)
            wave, rate = soundfile.read(io.BytesIO(data), dtype="int16", always_2d=True)
        except (soundfile.LibsndfileError, UserError) as error:
            raise UserError(
                f"{self._tar(i)}: the sound of {self.ids[i]!r} is damaged ({error}); "
                f"{self._files.mend}"
            ) from error
        return np.ascontiguousarray(wave.T), int(rate)

    def all_facts(self) -> Iterator[dict[str, Any]]:
        """Facts of every clip, in their order; behind a URL many are fetched at a time."""
        for start in range(0, len(self.ids), FACTS_A_READ):
            part = range(start, min(start + FACTS_A_READ, len(self.ids)))
            found = self.read([(i, FACTS) for i in part])
            yield from (self._facts(i, data) for i, data in zip(part, found, strict=True))

    def labels(self, i: int) -> tuple[str, ...]:
        """Labels of clip i."""
        return tuple(self.facts(i)["labels"])

    def captions(self, i: int) -> tuple[str, ...]:
        """Captions of clip i."""
        return tuple(self.facts(i)["captions"])

    def read(self, wanted: Sequence[tuple[int, int]], most: int | None = None) -> list[bytes]:
        """Bytes of each (clip, member), frame number, SOUND or FACTS; the first `most` of them.

        Behind a URL all are fetched together, so ask for a batch at once where you can.
        """
        places = []
        for i, member in wanted:
            if not 0 <= i < len(self.ids):
                raise UserError(f"{self.path} has {len(self.ids)} clips, no clip number {i}")
            offset, length = self._places[i, member].tolist()
            if not length:
                raise UserError(
                    f"clip {self.ids[i]!r} of {self.path} has no sound (flag no_audio); leave it "
                    "out, as ShardFolder(..., sound=True) does"
                )
            places.append((self._tars[self._shards[i]], offset, min(length, most or length)))
        found = self._files.ranges(places)
        for (i, member), (_, _, length), data in zip(wanted, places, found, strict=True):
            if len(data) != length:
                raise UserError(
                    f"{self._tar(i)}: member {member} of {self.ids[i]!r} ends after {len(data)} "
                    f"of {length} bytes; {self._files.mend}"
                )
        return found

    def _tar(self, i: int) -> str:
        return f"{self.path}/{self._tars[self._shards[i]]}"

    def close(self) -> None:
        """Close the open files; the next read opens what it needs."""
        self._files.close()


def _read_copied(data: bytes, facts: dict[str, Any]) -> tuple[np.ndarray, int]:
    """Int16 (channels, samples) of a copied stream, and its rate."""
    import av  # not loaded for FLAC and WAV, which are the rule

    from video_prep.decoding.sound_copy import read_copied
    from video_prep.decoding.waves import to_int16

    try:
        wave, rate = read_copied(data, facts)
    except (av.FFmpegError, KeyError, StopIteration) as error:
        raise UserError(f"{type(error).__name__}: {error}") from error
    return to_int16(wave), rate
