"""What can be embedded: shards, sound files, sentences; each with ids and a hash."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from numpy.typing import NDArray

from pivot.data.benchmarks import read_labels
from pivot.data.captions import read_captions
from pivot.errors import DataError, UserError
from video_prep.decode import read_sound
from video_prep.index import AUDIO, VIDEO, Clip, read_clips
from video_prep.shards import SOUND, ShardFolder
from video_prep.shards import is_shards as is_shards

HASH_BYTES = 2**20  # read at a time
TOGETHER = 16  # sounds of shards that are fetched together

Sound = tuple[NDArray, int]  # (channels, samples) and the rate in Hz
T = TypeVar("T")


class Sounds(Protocol):
    """Sounds to embed, in the order of their ids."""

    path: str
    ids: list[str]
    names: list[str]  # as shown: file names with their suffix

    def read(self, numbers: Sequence[int]) -> Iterator[Sound | DataError]:
        """Each sound, or why there is none; what is no sound's own fault is raised."""
        ...

    def fingerprint(self) -> str:
        """Hash of the content."""
        ...


class ShardSounds:
    """The sounds of prepared clips. Damaged shards are an error: verify mends them."""

    def __init__(self, shards: ShardFolder) -> None:
        self.shards, self.path = shards, shards.path
        self.ids = self.names = list(shards.ids)

    def read(self, numbers: Sequence[int]) -> Iterator[Sound | DataError]:
        """Sounds of clips, some at a time: behind a URL that takes the time of one."""
        for start in range(0, len(numbers), TOGETHER):
            part = numbers[start : start + TOGETHER]
            heard = [i for i in part if self.shards.has_sound(i)]
            found = self.shards.read([(i, SOUND) for i in heard])
            data = dict(zip(heard, found, strict=True))
            for i in part:
                if i in data:
                    yield self.shards.decode_sound(i, data.pop(i))
                else:
                    yield DataError("the clip has no sound (flag no_audio)")

    def fingerprint(self) -> str:
        """Hash of the shards."""
        return self.shards.fingerprint


class FileSounds:
    """Sound files (or the sound of videos) of a folder, a glob, a list, or one file."""

    def __init__(self, source: str) -> None:
        self.path, self.clips = source, read_clips(source, AUDIO | VIDEO)
        self.ids = [clip.id for clip in self.clips]
        self.names = [clip.source or clip.id for clip in self.clips]

    def read(self, numbers: Sequence[int]) -> Iterator[Sound | DataError]:
        """Sounds of files, or of the pieces of them that a list names."""
        for clip in (self.clips[i] for i in numbers):
            try:
                yield read_sound(clip.path, start=clip.start, end=clip.end)
            except UserError as error:
                yield DataError(str(error))

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


def through(
    sounds: Sounds, numbers: Sequence[int], front_end: Callable[[NDArray, int], T]
) -> Iterator[tuple[int, T | DataError]]:
    """Number of each sound, and what the front end makes of it or why it cannot be used."""
    for i, sound in zip(numbers, sounds.read(numbers), strict=True):
        try:
            yield i, sound if isinstance(sound, DataError) else front_end(*sound)
        except DataError as error:
            yield i, error


def open_sounds(source: str) -> Sounds:
    """Sounds of prepared shards, or of files."""
    return ShardSounds(ShardFolder(source)) if is_shards(source) else FileSounds(source)


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
