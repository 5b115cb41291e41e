"""Clips that a worker died of, so that neither this run nor the next need die of them again.

Every supervisor appends to a file of its own, since a network file system does not keep the lines
of several writers apart; all are read.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Set
from contextlib import suppress
from pathlib import Path

from video_prep.files import this_host, write_whole

Why = dict[str, str]  # reason and error
_FOLDER = ".poison"


def read_poison(out: Path) -> dict[str, Why]:
    """Clips known to kill or stall a worker: id -> reason and error."""
    poison: dict[str, Why] = {}
    try:
        files = sorted((out / _FOLDER).glob("*.jsonl"))
    except OSError:
        return poison
    for path in files:
        with suppress(FileNotFoundError):  # a run that finished has removed it
            for line in path.read_text(encoding="utf-8").splitlines():
                with suppress(ValueError, KeyError):  # a run was killed while it wrote its last
                    row = json.loads(line)
                    poison[row.pop("id")] = row
    return poison


def append_poison(out: Path, clip_id: str, why: Why) -> None:
    """Remember a clip that a worker died of."""
    path = _own(out)
    path.parent.mkdir(exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(_line(clip_id, why))
        file.flush()
        os.fsync(file.fileno())


def forget_poison(out: Path, retry: Set[str]) -> None:
    """Forget the clips with a reason in `retry` (`all`: every one), so that they are tried."""
    poison = read_poison(out)
    if not poison:
        return
    kept = {i: why for i, why in poison.items() if not {"all", why.get("reason")} & retry}
    for path in (out / _FOLDER).glob("*.jsonl"):
        path.unlink(missing_ok=True)
    write_whole(_own(out), "".join(_line(clip_id, why) for clip_id, why in kept.items()))


def remove_poison(out: Path) -> None:
    """Remove the record when every shard is there: its rows are in the shards now."""
    shutil.rmtree(out / _FOLDER, ignore_errors=True)


def _own(out: Path) -> Path:
    return out / _FOLDER / f"{this_host()}-{os.getpid()}.jsonl"


def _line(clip_id: str, why: Why) -> str:
    return json.dumps({"id": clip_id, **why}) + "\n"
