"""The record of a finished folder: a row for every input, a summary, a manifest.

It depends on the shards alone, so it is the same bytes whoever writes it, after any interruption.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from video_prep.errors import UserError
from video_prep.files import whole_file, write_json
from video_prep.report.summary import Summary
from video_prep.report.versions import as_text, merged
from video_prep.running.claims import remove_dead_claims
from video_prep.running.plan import Plan
from video_prep.running.poison import remove_poison
from video_prep.shards import FORMAT, content_fingerprint
from video_prep.storage.seals import file_hash, read_sealed, sealed
from video_prep.storage.shard_writer import read_index

MANIFEST = "manifest.json"
FILES = ("clips.jsonl", "failures.jsonl", "summary.html")


class _Tally:
    """Counts rows of clips.jsonl."""

    def __init__(self) -> None:
        self.prepared, self.reasons, self.flags = 0, Counter[str](), Counter[str]()

    def add(self, row: dict[str, Any]) -> None:
        """Count one row."""
        self.flags.update(row.get("flags", []))
        if row["status"] == "ok":
            self.prepared += 1
        else:
            self.reasons[row["reason"]] += 1

    def counts(self) -> dict[str, Any]:
        """Counts as the manifest has them."""
        failed = self.reasons.total()
        return {
            "clips": self.prepared + failed,
            "prepared": self.prepared,
            "failed": failed,
            "reasons": dict(sorted(self.reasons.items())),
            "flags": dict(sorted(self.flags.items())),
        }


def count_rows(indexes: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Counts over the rows of some shards' indexes: clips, prepared, failed, reasons, flags."""
    tally = _Tally()
    for index in indexes:
        for row in index["rows"]:
            tally.add(row)
    return tally.counts()


class _Gone(Exception):
    """A shard is not there (any more)."""


def write_record(out: Path, plan: Plan) -> dict[str, Any] | None:
    """Write clips.jsonl, failures.jsonl, summary.html and, last, manifest.json from the shards.

    Returns the counts; None where a shard is not there (any more), since another run redoes it.
    """
    try:
        return _write(out, plan)
    except _Gone:
        return None


def _write(out: Path, plan: Plan) -> dict[str, Any]:
    shards, tools = [], []
    tally, summary = _Tally(), Summary()
    with whole_file(out / FILES[0]) as clips, whole_file(out / FILES[1]) as failures:
        for number in range(plan.num_shards):
            index = read_index(out, number, plan.fingerprint)
            if index is None:
                raise _Gone
            shards.append(entry_of(index))
            tools.append(index["versions"])
            for row in _rows(out, index):
                line = json.dumps(row, ensure_ascii=False).encode() + b"\n"
                clips.write(line)
                if row["status"] != "ok":
                    failures.write(line)
                tally.add(row)
                summary.add(row)
    counts = tally.counts()
    counts |= {"shards": len(shards), "bytes": sum(shard["bytes"] for shard in shards)}
    manifest = {
        "format": FORMAT,
        "command": plan.command,
        "plan": plan.fingerprint,
        "fingerprint": content_fingerprint([shard["sha256"] for shard in shards]),
        "num_frames": plan.recipe.num_frames,
        "settings": plan.settings(),
        "inputs": {"clips": len(plan.clips), "sha256": plan.inputs},
        "counts": counts,
        "versions": merged(tools),
    }
    if plan.dataset is not None:
        manifest["dataset"] = plan.dataset
    summary.write(out, manifest)
    manifest["files"] = {name: file_hash(out / name) for name in FILES}
    remove_poison(out)  # its rows are in the shards now
    remove_dead_claims(out)
    write_json(out / MANIFEST, sealed({**manifest, "shards": shards}))
    return counts


def read_record(out: Path, plan: Plan, shards: list[Any]) -> dict[str, Any] | None:
    """Counts of the record in the folder; None where it is not whole or not of these shards.

    `shards` are their entries in the manifest.
    """
    manifest = read_sealed(out / MANIFEST)
    if manifest is None or manifest["plan"] != plan.fingerprint or manifest["shards"] != shards:
        return None
    for name, facts in manifest["files"].items():
        path = out / name
        if not path.is_file() or path.stat().st_size != facts["bytes"]:
            return None
    counts: dict[str, Any] = manifest["counts"]
    return counts


def entry_of(index: dict[str, Any]) -> dict[str, Any]:
    """What the manifest says of a shard."""
    name = Path(index["tar"]).stem
    return {"name": name, **{key: index[key] for key in ("clips", "bytes", "sha256")}}


def _rows(out: Path, index: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """One row per input of a shard, with the facts that its tar holds."""
    tools = as_text(index["versions"])
    path = out / index["tar"]
    try:
        with path.open("rb") as tar:
            for row in index["rows"]:
                facts = None
                if row["status"] == "ok":
                    offset, length, _ = row["members"]["json"]
                    tar.seek(offset)
                    facts = json.loads(tar.read(length))
                yield {
                    "id": row["id"],
                    "status": row["status"],
                    "reason": row.get("reason"),
                    "error": row.get("error"),
                    "shard": path.stem,
                    "key": row.get("key"),
                    "flags": row.get("flags", []),
                    "facts": facts,
                    "tools": tools,
                }
    except (OSError, ValueError) as error:
        if read_index(out, int(path.stem.rpartition("-")[2]), index["plan"]) != index:
            raise _Gone from error
        raise UserError(
            f"{path} is damaged ({error}); run pivot prepare-frames verify {out} to mend it"
        ) from error
