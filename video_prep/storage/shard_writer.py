"""Writes one shard: a plain tar with the same bytes every time, then its index of offsets."""

from __future__ import annotations

import hashlib
import os
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from video_prep.files import json_bytes, whole_file
from video_prep.keys import shard_name
from video_prep.shards import FORMAT
from video_prep.storage.seals import read_sealed, sealed

_BLOCK = tarfile.BLOCKSIZE
_END = bytes(2 * _BLOCK)  # two empty blocks end a tar


class TarWriter:
    """Appends members to a tar: USTAR headers with time 0, so equal input gives equal bytes."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._hash = hashlib.sha256()
        self._size = 0

    def _write(self, data: bytes) -> None:
        self._file.write(data)
        self._hash.update(data)
        self._size += len(data)

    def add(self, name: str, data: bytes) -> list[Any]:
        """Append one member; returns its [offset, length, sha1]."""
        info = tarfile.TarInfo(name)
        info.size = len(data)
        self._write(info.tobuf(tarfile.USTAR_FORMAT, "ascii", "strict"))
        offset = self._size
        self._write(data)
        self._write(bytes(-len(data) % _BLOCK))
        return [offset, len(data), hashlib.sha1(data, usedforsecurity=False).hexdigest()]

    def finish(self) -> tuple[int, str]:
        """Write the end of the tar; returns its size and sha256."""
        self._write(_END)
        return self._size, self._hash.hexdigest()


class ShardWriter:
    """Collects the rows of one shard: usable clips with members, failed ones with a reason."""

    def __init__(self, tar: TarWriter, versions: dict[str, str]) -> None:
        self._tar = tar
        self.versions = versions
        self.rows: list[dict[str, Any]] = []

    def add(self, row: dict[str, Any], members: dict[str, bytes]) -> None:
        """Append a usable clip: `row` has id, key and flags; `members` maps suffix to bytes."""
        places = {
            suffix: self._tar.add(f"{row['key']}.{suffix}", data)
            for suffix, data in members.items()
        }
        self.rows.append({**row, "status": "ok", "members": places})

    def fail(self, clip_id: str, reason: str, error: str) -> None:
        """Append a row for a clip that could not be used; it has no members."""
        self.rows.append({"id": clip_id, "status": "failed", "reason": reason, "error": error})


@contextmanager
def write_shard(
    out: Path, number: int, plan: str, versions: dict[str, str] | None = None
) -> Iterator[ShardWriter]:
    """Write shard `number` of the plan with fingerprint `plan`; the index appears last.

    A tar without an index is an unfinished shard, and is written again. An old shard of the same
    number stays whole until the new one is on the disk. `versions` are those of the tools in use;
    the block may change the writer's.
    """
    name = shard_name(number)
    index = out / f"{name}.json"
    with whole_file(index) as index_file, whole_file(out / f"{name}.tar") as file:
        tar = TarWriter(file)
        writer = ShardWriter(tar, versions or {})
        yield writer
        size, digest = tar.finish()
        facts = {"format": FORMAT, "plan": plan, "tar": f"{name}.tar", "bytes": size}
        facts |= {"sha256": digest, "clips": sum(row["status"] == "ok" for row in writer.rows)}
        facts |= {"versions": writer.versions, "rows": writer.rows}
        data = json_bytes(sealed(facts))
        index_file.write(data)
        for each in (file, index_file):
            each.flush()
            os.fsync(each.fileno())
        if index.exists() and index.read_bytes() != data:
            index.unlink()  # it must not stand beside the new tar


def read_index(out: Path, number: int, plan: str) -> dict[str, Any] | None:
    """Index of a shard that is done: sealed, of this plan, its tar of the right size; else None."""
    name = shard_name(number)
    index = read_sealed(out / f"{name}.json")
    try:
        size = (out / f"{name}.tar").stat().st_size
    except OSError:
        return None
    right = {"format": FORMAT, "plan": plan, "bytes": size}
    return index if index is not None and right.items() <= index.items() else None
