"""Which recordings the clips of a data set are: Freesound and YouTube ids, hashes of sounds.

Read are prepared shards, folders of sounds, stores' ids, pairs and caption files, id lists, and the
tables of ESC-50 (src_file), UrbanSound8K (fsID), Clotho (sound_id in clotho_metadata_X.csv, which
may lie beside the captions), FSD50K (fname), WavCaps and its exclusion lists, MACS, AudioCaps,
AudioSet and VGGSound. What no column tells the clips' names may: 1-100032-A-0, 100032-3-0-0,
100032__user__title, and YouTube ids.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pivot.data import pair_lists
from pivot.data.ids import COLUMNS, read_ids
from pivot.data.pairs import stream_pairs
from pivot.data.sound_hash import Form, hashes_of_files, hashes_of_shards
from pivot.data.tables import begins_with, column, csv_rows, json_lines, read_json
from pivot.errors import DataError
from video_prep.shards import ShardFolder
from video_prep.sources import macs
from video_prep.sources.clip import AUDIO, VIDEO, Clip
from video_prep.sources.files import clips_of_folder, stem_of, suffix_of
from video_prep.sources.recordings import (
    clotho_metadata,
    clotho_sounds,
    freesound_id,
    id_in_name,
    youtube_id,
)
from video_prep.sources.wavcaps import blacklist
from video_prep.storage.laion import is_tar_folder
from video_prep.storage.remote import is_url

KINDS = {"freesound": "Freesound id", "youtube": "YouTube id", "content": "sound"}
NAMES = (*COLUMNS, "src_wav")
FREESOUND = ("freesound_id", "freesound", "src_file", "fsid", "sound_id", "sound_link", "href")
YOUTUBE = ("youtube_id", "ytid", "youtube")
FSD50K = ("fname", "mids")  # columns of its lists: fname is the Freesound id
FEWEST = 0.1  # share of the names that must have the form of ids for any to be taken for one

Row = tuple[str, str | None, str | None]  # name, Freesound id, YouTube id


@dataclass(frozen=True)
class Recordings:
    """The clips of a data set by name, each once, and the ids that are known of them."""

    path: str
    names: list[str]
    ids: dict[str, list[str | None]]  # kind -> id of each clip

    def __len__(self) -> int:
        """Number of clips."""
        return len(self.names)

    def known(self, kind: str) -> int:
        """How many clips have an id of this kind."""
        return len(self) - self.ids[kind].count(None)


def recordings(source: str | Path, form: Form | None = None) -> Recordings:
    """What is known of the clips of a file or folder; equal names are one clip.

    "freesound:FILE" and "youtube:FILE" say of which kind the ids of a list are. `form` is that of
    the sounds in the shards with which a folder of files is to be compared. Raises DataError for
    what holds no clip.
    """
    kind, _, rest = str(source).partition(":")
    if kind in ("freesound", "youtube") and not is_url(source):
        return _all_of_kind(kind, recordings(rest, form))
    path = Path(source)
    if is_url(source) or (path / "shard-00000.json").is_file() or is_tar_folder(path):
        return recordings_of_shards(ShardFolder(source))
    if (path / "ids.json").is_file():  # an embedding store
        return _gathered(path, ((name, None, None) for name in read_ids(path / "ids.json")))
    return _of_folder(path, form or Form()) if path.is_dir() else _gathered(path, _rows(path))


def recordings_of_shards(shards: ShardFolder, numbers: Sequence[int] | None = None) -> Recordings:
    """What is known of the clips of these numbers (all of them) in shards.

    What the readers of lists kept in a clip's facts counts before the form of its id and source.
    """
    part = shards if numbers is None else shards.only(numbers)
    told: list[Row] = []
    sources: list[str] = []
    for facts in part.all_facts():
        told.append((facts["id"], facts.get("freesound"), facts.get("youtube")))
        sources.append(str(facts.get("source") or ""))
    ids = _ids(told, [[name for name, _, _ in told], sources])
    return Recordings(shards.path, part.ids, ids | {"content": hashes_of_shards(part)})


def recordings_of_clips(path: str, clips: Sequence[Clip]) -> Recordings:
    """What the list `path` tells of its clips, before any of their files is opened."""
    told = [(clip.id, clip.freesound, clip.youtube) for clip in clips]
    names = [clip.id for clip in clips]
    ids = _ids(told, [names, [clip.source for clip in clips]])
    return Recordings(path, names, ids | {"content": [None] * len(clips)})


def form_of_shards(shards: ShardFolder) -> Form | None:
    """How these shards keep sound, where their manifest tells it."""
    settings = shards.manifest.get("settings") or {}
    if settings.get("sound") == "copy" or not {"audio_rate", "channel"} <= settings.keys():
        return None
    return Form(settings["audio_rate"], settings["channel"])


def _of_folder(path: Path, form: Form) -> Recordings:
    clips = clips_of_folder(path, AUDIO | VIDEO)
    names = [clip.id for clip in clips]
    ids = _ids([(name, None, None) for name in names], [names])
    files = [clip.path for clip in clips]
    return Recordings(str(path), names, ids | {"content": hashes_of_files(files, form)})


def _all_of_kind(kind: str, found: Recordings) -> Recordings:
    """The same clips, whose names are ids of this kind."""
    read = freesound_id if kind == "freesound" else youtube_id
    ids = [read(_stem(name)) for name in found.names]
    if wrong := ids.count(None):
        first = found.names[ids.index(None)]
        raise DataError(f"{found.path}: {wrong} names are no {KINDS[kind]}, the first {first!r}")
    return Recordings(found.path, found.names, found.ids | {kind: ids})


# ---- ids ------------------------------------------------------------------------------------


def _gathered(path: Path, rows: Iterable[Row]) -> Recordings:
    """Clips by name, with the first id of each kind that a row of theirs gives."""
    told: dict[str, Row] = {}
    for row in rows:
        before = told.setdefault(row[0], row)
        if before is not row and (row[1] or row[2]):
            told[row[0]] = (row[0], before[1] or row[1], before[2] or row[2])
    if not told:
        raise DataError(f"{path} holds no clip")
    names = list(told)
    ids = _ids(list(told.values()), [names])
    return Recordings(str(path), names, ids | {"content": [None] * len(names)})


def _ids(told: Sequence[Row], names: Sequence[Sequence[str]]) -> dict[str, list[str | None]]:
    """Ids of both kinds: those that are told, else those in the first of the names that has one.

    A form that fewer than FEWEST of the names have is taken for chance.
    """
    found = {"freesound": [row[1] for row in told], "youtube": [row[2] for row in told]}
    for own in names:
        read = [id_in_name(name) for name in own]
        for kind, ids in found.items():
            those = [one[1] if one and one[0] == kind else None for one in read]
            if len(those) - those.count(None) >= FEWEST * len(those):
                found[kind] = [before or new for before, new in zip(ids, those, strict=True)]
    return found


def _stem(name: str) -> str:
    last = name.rpartition("/")[2]
    return stem_of(last) if suffix_of(last) in AUDIO | VIDEO else last


# ---- files ----------------------------------------------------------------------------------


def _rows(path: Path) -> Iterator[Row]:
    suffix = path.suffix.lower()
    if path.name.startswith("clotho_metadata_") and path.is_file():
        return ((name, sound, None) for name, sound in clotho_metadata(path).items())
    if suffix == ".parquet" or pair_lists.is_lists(path):
        return ((pair.audio_id, None, None) for pair in stream_pairs(path))
    if suffix in (".jsonl", ".ndjson") or (suffix == ".csv" and begins_with(path, "{")):
        return _of_objects(json_lines(path), "line", path)
    if suffix in (".csv", ".tsv"):
        return _of_table(csv_rows(path), path)
    if macs.is_table(path):
        return ((row.file, None, None) for row in macs.read(path))
    if suffix == ".json":
        return _of_json(read_json(path), path)
    return ((name, None, None) for name in read_ids(path))


def _of_table(rows: Iterator[list[str]], path: Path) -> Iterator[Row]:
    header = next(rows, [])
    place, freesound, youtube = (column(header, n) for n in (NAMES, FREESOUND, YOUTUBE))
    if all(column(header, [name]) is not None for name in FSD50K):
        freesound = column(header, FSD50K[:1])
    if place is None:
        place = next((p for p in (freesound, youtube) if p is not None), None)
    if place is None:
        yield from ((name, None, None) for name in read_ids(path))  # without a header, or an error
        return
    beside = clotho_sounds(path)
    for number, row in enumerate(rows, 2):
        name = _cell(row, place).strip()
        if not name:
            raise DataError(f"{path} row {number} has no id")
        sound = None if freesound is None else freesound_id(_cell(row, freesound))
        video = None if youtube is None else youtube_id(_cell(row, youtube))
        yield name, sound or beside.get(name), video


def _cell(row: list[str], place: int) -> str:
    return row[place] if place < len(row) else ""


def _of_json(value: Any, path: Path) -> Iterator[Row]:
    if (listed := blacklist(value)) is not None:
        # the kind of an id is told, so it is no name: SoundBible has numbers, too
        return ((f"{kind}:{name}", *_of_kind(kind, _stem(name))) for kind, name in listed)
    if isinstance(value, dict):
        lists = [value[key] for key in ("data", "annotations") if isinstance(value.get(key), list)]
        if not lists:  # {id: whatever is said of it}
            return ((name, None, None) for name in value)
        value = lists[0]  # of WavCaps, of COCO
    if not isinstance(value, list):
        raise DataError(f"{path} holds one value, not clips")
    return _of_objects(enumerate(value, 1), "entry", path)


def _of_kind(kind: str, name: str) -> tuple[str | None, str | None]:
    if kind == "freesound":
        return freesound_id(name), None
    found = id_in_name(name)
    return None, found[1] if found and found[0] == "youtube" else youtube_id(name)


def _of_objects(rows: Iterable[tuple[int, Any]], what: str, path: Path) -> Iterator[Row]:
    for number, value in rows:
        row = value if isinstance(value, dict) else {"id": value}
        name = _first(row, NAMES)
        if isinstance(name, bool) or not isinstance(name, str | int) or not str(name).strip():
            raise DataError(f"{path} {what} {number} is no clip; call the key of its id `id`")
        sound, video = (_first(row, columns) for columns in (FREESOUND, YOUTUBE))
        yield str(name).strip(), freesound_id(sound), youtube_id(video)


def _first(row: dict[str, Any], names: Iterable[str]) -> Any:
    return next((row[name] for name in names if row.get(name) is not None), None)
