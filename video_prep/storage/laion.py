"""LAION's WebDataset layout as it is: tars of KEY.flac and KEY.json, with sizes.json beside them.

    ROOT/DATASET/SPLIT/0.tar ...   a clip's sound at its own rate; text, tag, original_data
    ROOT/DATASET/SPLIT/sizes.json  {"0.tar": 512, ...}: clips of each tar, where it is there

ROOT, ROOT/DATASET or ROOT/DATASET/SPLIT can be opened. A clip's id is the tar's name in the opened
folder without .tar, a slash, and its key. Opening walks the headers of every tar, some 40 us of
work for a clip; nothing is written anywhere, so every process does it again.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np

from video_prep.errors import UserError
from video_prep.sources.clip import AUDIO, VIDEO
from video_prep.sources.files import suffix_of
from video_prep.storage.local import LocalFiles
from video_prep.storage.places import NO_SOUND, Places
from video_prep.storage.prepared import json_object
from video_prep.storage.remote import RemoteFiles
from video_prep.storage.tar_headers import DamagedTar, Member, members

MEND = "download the tar again, or take it out of the folder and of sizes.json"
SIZES = "sizes.json"
_SOUND, _FACTS = ".flac", ".json"
_LOCAL_AHEAD, _REMOTE_AHEAD = 2048, 16384  # bytes; the second spares a request for most JSONs
_THREADS = 32  # tars that are walked at a time behind a URL: each waits for every answer

Files = LocalFiles | RemoteFiles


# ---- which tars ----------------------------------------------------------------------------


def find_tars(files: Files) -> list[str]:
    """Names of the folder's tars in this layout, in order of their numbers; [] for other folders.

    Behind a URL those that sizes.json names, where there is one, since not every server lists.
    """
    sizes = _read_sizes(files, "") if isinstance(files, RemoteFiles) else None
    names = list(sizes) if sizes else files.tars()
    names.sort(key=_by_number)
    if not names or files.find(f"{_stem(names[0])}.json") is not None:  # a shard has one beside it
        return []
    return [] if isinstance(files, LocalFiles) and _among_media(files, names[0]) else names


def is_tar_folder(path: str | Path) -> bool:
    """Whether a local folder is in this layout: it holds tars, and no media files beside them."""
    return Path(path).is_dir() and bool(find_tars(LocalFiles(str(path))))


def _among_media(files: LocalFiles, name: str) -> bool:
    beside = Path(files.place, name).parent.iterdir()
    return any(suffix_of(path.name) in AUDIO | VIDEO for path in beside)


def _by_number(name: str) -> list[tuple[int, str]]:
    """Key by which 10.tar comes after 9.tar."""
    parts = re.split(r"(\d+)", name)
    return [(int(part), "") if part.isdigit() else (-1, part) for part in parts]


def _stem(name: str) -> str:
    return re.sub(r"\.(tar|tar\.gz|tgz)$", "", name)


# ---- opening -------------------------------------------------------------------------------


def read_places(files: Files, names: Sequence[str], sound: bool) -> Places:
    """Ids and places of the clips in these tars; UserError for the first tar that is not whole.

    The fingerprint is of the members' names, places, sizes and times: their bytes are not read.
    """
    sizes = files.sizes(list(names))
    walk = partial(_walk, files)
    if isinstance(files, RemoteFiles):
        with ThreadPoolExecutor(_THREADS) as threads:
            walked = list(threads.map(walk, names, sizes))
    else:
        walked = [walk(name, size) for name, size in zip(names, sizes, strict=True)]
    _check_sizes(files, names, [len(ids) for ids, _, _ in walked])
    fingerprint = hashlib.sha256("\n".join(digest for _, _, digest in walked).encode()).hexdigest()
    found = [(ids, places) for ids, places, _ in walked]
    _refuse_same(files, names, found)
    return Places.of_tars(list(names), found, fingerprint, sound, {"num_frames": 0})


def _refuse_same(
    files: Files, names: Sequence[str], found: list[tuple[list[str], np.ndarray]]
) -> None:
    """Refuse a key with a folder in it that makes another tar's id: a.tar b/c, and a/b.tar c."""
    if not any("/" in name for name in names):
        return
    first: dict[str, str] = {}
    for name, (ids, _) in zip(names, found, strict=True):
        for one in ids:
            if first.setdefault(one, name) != name:
                raise UserError(
                    f"{files.place}/{first[one]} and {name} both hold a clip {one!r}; open their "
                    "folders one by one"
                )


def _walk(files: Files, name: str, size: int | None) -> tuple[list[str], np.ndarray, str]:
    """Ids of a tar's clips, places (clips, 2, 2) of sound and facts, and a hash of its headers."""

    def read(offset: int, length: int) -> bytes:
        return files.ranges([(name, offset, length)])[0]

    digest = hashlib.sha256(name.encode())
    found: dict[str, dict[str, Member]] = {}
    ahead = _REMOTE_AHEAD if isinstance(files, RemoteFiles) else _LOCAL_AHEAD
    try:
        for member in members(read, size, ahead):
            digest.update(repr(tuple(member)).encode())
            suffix = suffix_of(member.name)
            if suffix in (_SOUND, _FACTS):
                own = found.setdefault(member.name[: -len(suffix)], {})
                if own.setdefault(suffix, member) is not member:
                    raise DamagedTar(f"holds {member.name!r} twice")
        places = [_both(key, own) for key, own in found.items()]
    except DamagedTar as error:
        raise UserError(f"{files.place}/{name} {error}; {MEND}") from None
    array = np.array(places, np.int64).reshape(len(places), 2, 2)
    return [f"{_stem(name)}/{key}" for key in found], array, digest.hexdigest()


def _both(key: str, own: dict[str, Member]) -> list[tuple[int, int]]:
    for suffix, other in ((_SOUND, _FACTS), (_FACTS, _SOUND)):
        if suffix not in own:
            raise DamagedTar(f"holds {key + other!r} without {key + suffix!r}")
    sound, facts = own[_SOUND], own[_FACTS]
    place = (sound.offset, sound.size) if sound.size else NO_SOUND
    return [place, (facts.offset, facts.size)]


def _check_sizes(files: Files, names: Sequence[str], counts: Iterable[int]) -> None:
    """Refuse tars with more or fewer clips than the sizes.json beside them says."""
    told: dict[str, dict[str, int] | None] = {}
    for name, count in zip(names, counts, strict=True):
        folder, _, own = name.rpartition("/")
        prefix = folder and f"{folder}/"
        if folder not in told:
            told[folder] = sizes = _read_sizes(files, prefix)
            for other in (one for one in sizes or () if prefix + one not in names):
                raise UserError(
                    f"{files.place}/{prefix}{SIZES} names {other}, which is not there; download "
                    f"it, or take it out of {SIZES}"
                )
        said = told[folder]
        if said is not None and said.get(own) != count:
            says = f"{said[own]} clips" if own in said else "nothing of it"
            raise UserError(
                f"{files.place}/{name} holds {count} clips, and {SIZES} says {says}; download the "
                f"tar again, or correct {SIZES}"
            )


def _read_sizes(files: Files, prefix: str) -> dict[str, int] | None:
    """Tar -> its clips as sizes.json says, None where there is no such file."""
    data = files.find(prefix + SIZES)
    if data is None:
        return None
    place = f"{files.place}/{prefix}{SIZES}"
    found = json_object(data, place, "download it again, or delete it")
    for name, count in found.items():
        if isinstance(count, bool) or not isinstance(count, int):
            raise UserError(
                f"{place}: {name!r} is {count!r}, not a number of clips; mend or delete it"
            )
    return found
