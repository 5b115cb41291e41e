"""How the shards of one folder are made: all that a machine must know, apart from the clips."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from video_prep.keys import shard_name
from video_prep.recipe import Recipe
from video_prep.storage.shard_writer import read_index

DECODE = "video_prep.decode:decode_clip"
Stamp = tuple[int, int]


@dataclass(frozen=True)
class Job:
    """What every engine is given. Shards in `stamps` are made again although they are there."""

    out: Path
    plan: str  # fingerprint
    recipe: Recipe
    timeout: float = 120.0  # seconds a clip
    memory_mb: int | None = None
    decode: str = DECODE  # function that workers call on a clip, as module:name
    retry: frozenset[str] = frozenset()  # reasons that are tried again
    stamps: Mapping[int, Stamp | None] = field(default_factory=dict)  # of the old shards

    def is_done(self, number: int) -> bool:
        """True where the shard is there, and is no longer an old one that is to be made again."""
        return not self.is_old(number) and read_index(self.out, number, self.plan) is not None

    def is_old(self, number: int) -> bool:
        """True where the shard is still the one that is to be made again."""
        return number in self.stamps and stamp(self.out, number) == self.stamps[number]


def stamp(out: Path, number: int) -> Stamp | None:
    """What tells one tar of a shard from the next, without a look inside; None without a tar."""
    try:
        facts = (out / f"{shard_name(number)}.tar").stat()
    except OSError:
        return None
    return facts.st_ino, facts.st_mtime_ns
