"""What is wrong with a prepared folder: hashes shards and record, changes nothing."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

from video_prep.keys import shard_name
from video_prep.report.record import FILES, MANIFEST
from video_prep.running.plan import Plan
from video_prep.shards import FORMAT
from video_prep.storage.reuse import OldShard
from video_prep.storage.seals import file_hash, read_sealed

SHARD = re.compile(r"shard-(\d{5,})\.(tar|json)")


@dataclass
class Shard:
    """What hashing one shard showed; `what` is empty where it is whole."""

    number: int
    what: str = ""
    sha256: str = ""
    bytes: int = 0
    hurt: list[int] = field(default_factory=list)  # clips that cannot be kept, as in the plan
    lost_index: bool = False  # all that is wrong: its tar is the one that the record tells of


@dataclass
class Damage:
    """All that is wrong with a folder."""

    shards: list[Shard]
    record: list[str]  # a line for each damaged file of the record
    foreign: list[Path]  # shards that the plan does not have
    seconds: float

    @property
    def damaged(self) -> list[Shard]:
        """Shards that must be done again."""
        return [shard for shard in self.shards if shard.what]

    @property
    def whole(self) -> bool:
        """True where nothing has to be done."""
        return not (self.damaged or self.record or self.foreign)


def look(out: Path, plan: Plan, threads: int) -> Damage:
    """Hash all of the folder in so many threads."""
    begun = time.monotonic()
    shards = hash_all(out, plan, range(plan.num_shards), threads)
    manifest = read_sealed(out / MANIFEST)
    if manifest and (manifest.get("format"), manifest.get("plan")) != (FORMAT, plan.fingerprint):
        manifest = None
    record = list(_record(out, manifest, shards))
    if manifest is not None and not any(line.startswith(FILES[0]) for line in record):
        for shard in shards:
            _find_lost_index(out, manifest, shard)
    names = [(path, SHARD.fullmatch(path.name)) for path in sorted(out.iterdir())]
    foreign = [path for path, name in names if name and int(name[1]) >= plan.num_shards]
    return Damage(shards, record, foreign, time.monotonic() - begun)


def hash_all(out: Path, plan: Plan, numbers: Iterable[int], threads: int) -> list[Shard]:
    """Check these shards, in so many threads (hashing holds no lock of the interpreter)."""
    numbers = list(numbers)
    pool = ThreadPoolExecutor(threads)
    try:
        done = pool.map(lambda number: _hash(out, plan, number), numbers)
        return list(tqdm(done, "verify", len(numbers), unit="shard", disable=None, leave=False))
    finally:
        pool.shutdown(cancel_futures=True)


def _hash(out: Path, plan: Plan, number: int) -> Shard:
    """Check one shard: its index against the plan, its tar against its index."""
    shard = Shard(number)
    index = read_sealed(out / f"{shard_name(number)}.json")
    if index is None:
        there = (out / f"{shard_name(number)}.json").exists()
        shard.what = f"its index is {'damaged' if there else 'missing'}"
    else:
        try:
            shard.what = _wrong_index(index, plan, number) or _wrong_tar(out, index, shard)
        except (KeyError, TypeError):
            shard.what = "its index was written wrongly"
    if shard.what:
        shard.hurt = list(_hurt(out, plan, number))
    return shard


def _wrong_index(index: dict[str, Any], plan: Plan, number: int) -> str:
    if index.get("format") != FORMAT or index.get("plan") != plan.fingerprint:
        return "its index is of another plan"
    ids = [clip.id for clip in plan.shard(number)]
    if index["tar"] != f"{shard_name(number)}.tar" or [row["id"] for row in index["rows"]] != ids:
        return f"its index is that of {Path(index['tar']).stem}"
    return ""


def _wrong_tar(out: Path, index: dict[str, Any], shard: Shard) -> str:
    try:
        found = file_hash(out / index["tar"])
    except FileNotFoundError:
        return "its tar is missing"
    except OSError as error:
        return f"its tar cannot be read ({error.strerror})"
    shard.bytes, shard.sha256 = found["bytes"], found["sha256"]
    if shard.bytes != index["bytes"]:
        return f"its tar has {shard.bytes} bytes, not {index['bytes']}"
    return "" if shard.sha256 == index["sha256"] else "its tar has another sha256 than its index"


def _hurt(out: Path, plan: Plan, number: int) -> Iterator[int]:
    """Clips of a damaged shard of which nothing can be kept, by their place in the plan."""
    old = OldShard(out, number, plan.fingerprint)
    first = number * plan.shard_size
    for i, clip in enumerate(plan.shard(number), first):
        if old.row(clip.id) is None and old.members(clip.id) is None:
            yield i


def _find_lost_index(out: Path, manifest: dict[str, Any], shard: Shard) -> None:
    """Where only the index is wrong, no clip is hurt: it can be made again from the tar."""
    said = {entry["name"]: entry["sha256"] for entry in manifest["shards"]}
    name = shard_name(shard.number)
    if shard.what and not shard.sha256:
        with suppress(OSError):
            shard.lost_index = file_hash(out / f"{name}.tar")["sha256"] == said.get(name)
        shard.hurt = [] if shard.lost_index else shard.hurt


def _record(out: Path, manifest: dict[str, Any] | None, shards: list[Shard]) -> Iterator[str]:
    """A line for each file of the record that is missing, damaged, or of other shards."""
    if manifest is None:
        there = (out / MANIFEST).exists()
        yield f"{MANIFEST}: it is {'damaged or of another plan' if there else 'missing'}"
        return
    said = [entry["sha256"] for entry in manifest["shards"]]
    other = [s.number for s in shards if not s.what and said[s.number : s.number + 1] != [s.sha256]]
    if other or len(said) != len(shards):
        which = shard_name(other[0]) if other else f"{len(said)} shards"
        yield f"{MANIFEST}: it is not that of these shards ({which})"
    for name in FILES:
        try:
            same = file_hash(out / name) == manifest["files"].get(name)
        except OSError as error:
            yield f"{name}: {error.strerror}"
        else:
            if not same:
                yield f"{name}: it has other bytes than {MANIFEST} says"
