"""What an output folder is to hold: which clip goes into which shard, under which settings."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from video_prep.errors import UserError
from video_prep.files import write_json
from video_prep.index import Clip
from video_prep.keys import shard_name
from video_prep.recipe import Recipe
from video_prep.shards import FORMAT, read_json

try:
    import fcntl
except ImportError:  # not on Windows, where two runs on one folder are not kept apart
    fcntl = None  # type: ignore[assignment]

_LARGEST, _SMALLEST, _SHARDS = 256, 16, 16


@dataclass(frozen=True)
class Plan:
    """Clips in order, cut into shards of `shard_size`; a shard depends on nothing else."""

    command: str
    recipe: Recipe
    shard_size: int
    clips: list[Clip]
    inputs: str  # sha256 over all clips: ids, sources, bounds, labels, captions, sizes of the files
    fingerprint: str  # sha256 over settings and inputs

    @property
    def num_shards(self) -> int:
        """Number of shards."""
        return -(-len(self.clips) // self.shard_size)

    def shard(self, number: int) -> list[Clip]:
        """Clips of one shard."""
        return self.clips[number * self.shard_size : (number + 1) * self.shard_size]

    def settings(self) -> dict[str, Any]:
        """Settings that change the content, as they are recorded and compared."""
        return {"command": self.command, **asdict(self.recipe), "shard_size": self.shard_size}


def make_plan(command: str, recipe: Recipe, shard_size: int | None, clips: list[Clip]) -> Plan:
    """Plan of a run; without a shard size small sets get shards enough for every core."""
    size = shard_size or min(_LARGEST, max(_SMALLEST, -(-len(clips) // _SHARDS)))
    digest = hashlib.sha256()
    for clip in clips:
        row = [clip.id, clip.source, clip.start, clip.end, clip.labels, clip.captions]
        digest.update(json.dumps([*row, _size(clip.path)]).encode() + b"\n")
    inputs = digest.hexdigest()
    settings = {"command": command, **asdict(recipe), "shard_size": size}
    whole = json.dumps([FORMAT, settings, inputs], sort_keys=True)
    return Plan(command, recipe, size, clips, inputs, hashlib.sha256(whole.encode()).hexdigest())


def _size(path: Path) -> int:
    """Bytes of a file (a changed file is another input), or -1 where there is none."""
    try:
        return path.stat().st_size
    except OSError:
        return -1


@contextmanager
def claimed(out: Path, plan: Plan) -> Iterator[None]:
    """Hold `out` for this run alone, and make sure that it is empty or of the same plan."""
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file; give --out a folder")
    try:
        out.mkdir(parents=True, exist_ok=True)
        lock = os.open(out, os.O_RDONLY)
    except OSError as error:
        raise UserError(f"cannot use {out}: {error.strerror}; choose another --out") from error
    try:
        _lock(lock, out)
        _check(out, plan)
        for leftover in out.glob(".tmp-*"):  # of a run that was killed; nobody else is here
            leftover.unlink()
        yield
    finally:
        os.close(lock)


def _lock(lock: int, out: Path) -> None:
    if fcntl is None:
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise UserError(
            f"{out} is in use by another prepare run; wait for it or choose another --out"
        ) from None
    except OSError:
        return  # a file system without locks


def _check(out: Path, plan: Plan) -> None:
    path = out / "plan.json"
    if not path.exists():
        found = sorted(file.name for file in out.iterdir() if not file.name.startswith(".tmp-"))
        if found:
            raise UserError(
                f"{out} is not empty (it holds {found[0]}) and was not made by this command; "
                "choose another --out"
            )
        facts = {"format": FORMAT, "plan": plan.fingerprint, "settings": plan.settings()}
        write_json(path, facts | {"clips": len(plan.clips), "inputs": plan.inputs})
        return
    before = read_json(path)
    if before.get("plan") != plan.fingerprint:
        raise UserError(
            f"{out} was begun with {_difference(before, plan)}; use the same again or another --out"
        )


def _difference(before: dict[str, Any], plan: Plan) -> str:
    """What differs between the plan in a folder and this one, in words."""
    if before.get("format") != FORMAT:
        return f"another version (format {before.get('format')!r}, now {FORMAT!r})"
    old, new = before.get("settings", {}), plan.settings()
    keys = [key for key in new if key != "shard_size" and old.get(key) != new[key]]
    parts = [f"{key} {old.get(key)}, not {new[key]}" for key in keys]
    if before.get("clips") != len(plan.clips):
        parts.append(f"{before.get('clips')} input clips, not {len(plan.clips)}")
    elif before.get("inputs") != plan.inputs:
        parts.append("other inputs (ids, bounds, labels, captions or file sizes have changed)")
    elif old.get("shard_size") != new["shard_size"]:
        parts.append(f"shard_size {old.get('shard_size')}, not {new['shard_size']}")
    return " and ".join(parts) or "another plan"


def is_done(out: Path, number: int, plan: Plan) -> bool:
    """True where the shard's index is there, is of this plan, and its tar has the right size."""
    name = shard_name(number)
    try:
        index = json.loads((out / f"{name}.json").read_text(encoding="utf-8"))
        size = (out / f"{name}.tar").stat().st_size
        return bool(index["plan"] == plan.fingerprint and index["bytes"] == size)
    except (OSError, ValueError, KeyError, TypeError):
        return False
