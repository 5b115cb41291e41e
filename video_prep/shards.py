"""Reads a prepared folder at random: frames, sounds and facts of its clips, by number or id."""

from __future__ import annotations

import copy
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from video_prep.errors import UserError
from video_prep.storage import laion, prepared
from video_prep.storage.laion_facts import SelectText, clip_facts
from video_prep.storage.local import REDO, LocalFiles
from video_prep.storage.places import FACTS, SOUND, Places
from video_prep.storage.prepared import FORMAT, MANIFEST, PLAN, content_fingerprint, read_json
from video_prep.storage.remote import RemoteFiles, is_url

FACTS_A_READ = 256
_MATROSKA = b"\x1aE\xdf\xa3"  # the first bytes of a stream that was copied and not decoded

__all__ = [
    "FACTS",
    "FORMAT",
    "REDO",
    "SOUND",
    "SelectText",
    "ShardFolder",
    "content_fingerprint",
    "is_shards",
    "read_json",
]


def is_shards(path: str | Path) -> bool:
    """Whether a folder is read as shards: prepared ones, finished or not, or LAION's tars.

    A URL can name shards alone: sound files are read from disks.
    """
    if is_url(path) or any((Path(path) / name).is_file() for name in (MANIFEST, PLAN)):
        return True
    return laion.is_tar_folder(path)


class ShardFolder:
    """A finished folder of shards, or LAION's tars, local or behind a URL, open for reading.

    Clips are in manifest order and only usable ones count; with `sound` only those that have a
    sound. Opening reads the index files, of LAION's tars (storage/laion.py) the headers; their
    captions are what `select_text` chooses. Safe in threads, after fork and through pickle.
    """

    def __init__(
        self, path: str | Path, sound: bool = False, select_text: SelectText = "none"
    ) -> None:
        self.path = str(path).rstrip("/") if is_url(path) else str(Path(path))
        self._files = RemoteFiles(self.path) if is_url(path) else LocalFiles(self.path)
        self.select_text: SelectText = select_text
        self.tars_of_laion = False
        places = self._places_of(sound)
        self.manifest = places.manifest
        self.num_frames = int(self.manifest["num_frames"])
        self.ids = places.ids
        # of all usable clips, also where `sound` is set
        self.ids_without_sound = places.ids_without_sound
        self.fingerprint = places.fingerprint
        self._tars, self._shards, self._places = places.tars, places.shards, places.members
        self._numbers: dict[str, int] = {}
        if not self.ids:
            why = f"no usable clip; see {self.path}/failures.jsonl for reasons"
            if self.tars_of_laion:
                why = "no clip: its tars are without KEY.flac and KEY.json"
            if self.ids_without_sound:
                why = f"no clip with sound: all {len(self.ids_without_sound)} are flagged no_audio"
            raise UserError(f"{self.path} holds {why}")

    # ---- opening ---------------------------------------------------------------------------

    def _places_of(self, sound: bool) -> Places:
        if not is_url(self.path) and not Path(self.path).is_dir():
            raise UserError(
                f"{self.path} is not a folder of shards; make one with pivot prepare-frames"
            )
        data = self._files.find(MANIFEST)
        if data is not None:
            if self.select_text != "none":
                raise UserError(
                    f"select_text {self.select_text} is for LAION's tars, and {self.path} holds "
                    "prepared clips with captions of their own; leave it out"
                )
            manifest = prepared.checked_manifest(data, self.path, self._files.mend)
            return prepared.read_places(self.path, self._files, manifest, sound)
        if self._files.find(PLAN) is not None:
            raise UserError(
                f"{self.path} is not finished (no {MANIFEST}); run its prepare command again"
            )
        if tars := laion.find_tars(self._files):
            self.tars_of_laion, self._files.mend = True, laion.MEND
            return laion.read_places(self._files, tars, sound)
        raise UserError(f"{self.path} holds no {MANIFEST}; make shards with pivot prepare-frames")

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
            there = (
                f"it has {self.ids[0]!r}, ..."
                if self.tars_of_laion
                else ("see clips.jsonl there for what is")
            )
            raise UserError(f"clip {clip_id!r} is not in {self.path}; {there}") from None

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
        if self.tars_of_laion:
            return self._facts_of_laion(i, data)
        facts = prepared.json_object(data, place, mend)
        if facts.get("id") != self.ids[i]:
            raise UserError(f"{place}: its facts are those of {facts.get('id')!r}; {mend}")
        return facts

    def _facts_of_laion(self, i: int, data: bytes) -> dict[str, Any]:
        tar = self._tars[self._shards[i]].removesuffix(".tar")
        member = f"{self.ids[i].removeprefix(f'{tar}/')}.json"
        try:
            return clip_facts(data, self.ids[i], member, self.select_text)
        except (ValueError, RecursionError) as error:
            raise UserError(
                f"{self._tar(i)}: its member {member!r} cannot be read ({error}); "
                f"{self._files.mend}"
            ) from None

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
