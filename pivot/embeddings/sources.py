"""What can be embedded: shards, sound files, sentences; each with ids and a hash."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from numpy.typing import NDArray

from pivot.data.benchmarks import read_labels
from pivot.data.captions import read_captions
from pivot.errors import DataError
from video_prep.decode import read_sound
from video_prep.index import AUDIO, VIDEO, Clip, read_clips
from video_prep.shards import ShardFolder

HASH_BYTES = 2**20  # read at a time


class Sounds(Protocol):
    """Sounds to embed, in the order of their ids."""

    path: str
    ids: list[str]
    names: list[str]  # as shown: file names with their suffix

    def read(self, i: int) -> tuple[NDArray, int]:
        """Sound i: (channels, samples) and its rate."""
        ...

    def fingerprint(self) -> str:
        """Hash of the content."""
        ...


class ShardSounds:
    """The sounds of prepared clips."""

    def __init__(self, shards: ShardFolder) -> None:
        self.shards, self.path = shards, str(shards.path)
        self.ids = self.names = list(shards.ids)

    def read(self, i: int) -> tuple[NDArray, int]:
        """Sound of clip i."""
        return self.shards.sound(i)

    def fingerprint(self) -> str:
        """Hash of the shards."""
        return self.shards.fingerprint


class FileSounds:
    """Sound files (or the sound of videos) of a folder, a glob, a list, or one file."""

    def __init__(self, source: str) -> None:
        self.path, self.clips = source, read_clips(source, AUDIO | VIDEO)
        self.ids = [clip.id for clip in self.clips]
        self.names = [clip.source or clip.id for clip in self.clips]

    def read(self, i: int) -> tuple[NDArray, int]:
        """Sound of file i, or of the piece of it that a list names."""
        clip = self.clips[i]
        return read_sound(clip.path, start=clip.start, end=clip.end)

    def fingerprint(self) -> str:
        """Hash of names, bounds and bytes of the files."""
        digest = hashlib.sha256()
        for clip in self.clips:
            digest.update(f"{clip.id}\n{clip.start}\n{clip.end}\n{_file_hash(clip)}\n".encode())
        return digest.hexdigest()


def _file_hash(clip: Clip) -> str:
    digest = hashlib.blake2b(digest_size=16)
    try:
        with clip.path.open("rb") as file:
            while block := file.read(HASH_BYTES):
                digest.update(block)
    except OSError:
        return "unreadable"  # named as a failure when it is embedded
    return digest.hexdigest()


def open_sounds(source: str) -> Sounds:
    """Sounds of prepared shards, or of files."""
    return ShardSounds(ShardFolder(source)) if is_shards(source) else FileSounds(source)


def is_shards(path: str | Path) -> bool:
    """Whether a folder was made by prepare-frames or prepare-audio, finished or not."""
    return any((Path(path) / name).is_file() for name in ("manifest.json", "plan.json"))


def middle_frame(frames: int) -> int:
    """Index of the middle frame of a clip: the ceil(n / 2)-th of n."""
    return (frames + 1) // 2 - 1


@dataclass(frozen=True)
class Sentences:
    """Sentences to embed."""

    path: str
    ids: list[str]
    texts: list[str]

    def fingerprint(self) -> str:
        """Hash of the sentences."""
        return hash_texts(self.texts)


def hash_texts(texts: Sequence[str]) -> str:
    """sha256 of sentences in their order."""
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()


def read_sentences(path: str, skipped: list[str]) -> Sentences:
    """Captions of a caption file, else the labels of a label file."""
    try:
        captions = read_captions(path, skipped)
        return Sentences(path, [c.id for c in captions], [c.text for c in captions])
    except DataError as error:
        try:
            labels = read_labels(path)
        except DataError:
            raise error from None
        return Sentences(path, labels, labels)
