"""Makes the lost index of a whole tar again, from the tar and clips.jsonl; needs no source."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from video_prep.keys import shard_name
from video_prep.report.versions import from_text
from video_prep.running.plan import Plan
from video_prep.storage.shard_writer import write_shard


def rebuild(out: Path, plan: Plan, numbers: Iterable[int]) -> None:
    """Write shards of a plan again with the same bytes, index and all.

    The caller has made sure that their tars and clips.jsonl are those of manifest.json.
    """
    rows: dict[str, list[dict[str, Any]]] = {shard_name(number): [] for number in numbers}
    if not rows:
        return
    with (out / "clips.jsonl").open(encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            if row["shard"] in rows:
                rows[row["shard"]].append(row)
    for number in numbers:
        _rebuild(out, number, plan.fingerprint, rows[shard_name(number)])


def _rebuild(out: Path, number: int, plan: str, rows: list[dict[str, Any]]) -> None:
    places: dict[str, list[tuple[str, tarfile.TarInfo]]] = {}
    versions = from_text(rows[0]["tools"])
    with (
        tarfile.open(out / f"{shard_name(number)}.tar") as tar,
        write_shard(out, number, plan, versions) as writer,
    ):
        for info in tar:
            key, _, suffix = info.name.partition(".")  # a key holds no dot
            places.setdefault(key, []).append((suffix, info))
        for row in rows:
            if row["status"] == "ok":
                facts = {key: row[key] for key in ("id", "key", "flags")}
                members = {suffix: _read(tar, info) for suffix, info in places[row["key"]]}
                writer.add(facts, members)
            else:
                writer.fail(row["id"], row["reason"], row["error"])


def _read(tar: tarfile.TarFile, info: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(info)
    assert file is not None  # a shard holds plain files alone
    return file.read()
