"""Begins an output folder with a plan, or joins one that was begun with the same plan."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

from video_prep.errors import UserError
from video_prep.files import create_once, whole_file, write_whole
from video_prep.running.plan import INPUTS, PLAN, Plan, Sizes, load_plan, plan_lines
from video_prep.shards import FORMAT, read_json
from video_prep.storage.shard_writer import read_index

_COMPARED = (
    "id", "source", "start", "end", "labels", "captions", "fault", "fold", "split",
    "freesound", "youtube",
)  # fmt: skip


def join(out: Path, plan: Plan, origin: dict[str, Any]) -> Plan:
    """Begin `out` with this plan, or make sure that it was begun with the same one.

    Of two runs that begin a folder at once with different settings, one is refused. `origin` says
    what the clips were read from. Returns the plan as it is saved now. Raises UserError.
    """
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file; give --out a folder")
    facts: dict[str, Any] = {
        "format": FORMAT,
        "plan": plan.fingerprint,
        "settings": plan.settings(),
    }
    facts |= {"clips": len(plan.clips), "inputs": plan.inputs}
    if plan.dataset is not None:
        facts["dataset"] = plan.dataset
    text = json.dumps(facts, indent=1, ensure_ascii=False) + "\n"
    try:
        out.mkdir(parents=True, exist_ok=True)
        path = out / PLAN
        if not path.exists():
            _refuse_used(out)
            create_once(path, text)
    except OSError as error:
        raise UserError(f"cannot use {out}: {error.strerror}; choose another --out") from error
    try:
        before = read_json(path)
    except UserError:
        if not any(read_index(out, k, plan.fingerprint) for k in range(plan.num_shards)):
            raise UserError(
                f"{path} is damaged, and no shard in {out} is of these settings; choose another "
                "--out"
            ) from None
        write_whole(path, text)
        before = facts
    if before.get("plan") != plan.fingerprint:
        changed = _difference(out, before, plan)
        raise UserError(f"{out} was begun with {changed}; use the same again or another --out")
    if plan.origin is None and not _is_saved(out, plan, origin):
        with whole_file(out / INPUTS) as file:
            file.writelines(line + b"\n" for line in plan_lines(plan, origin))
    plan = replace(plan, dataset=before.get("dataset"))
    return plan if plan.origin is not None else replace(plan, origin=origin)


def _refuse_used(out: Path) -> None:
    ours = (".tmp-", PLAN)  # another run may have begun just now
    found = sorted(path.name for path in out.iterdir() if not path.name.startswith(ours))
    if found and not (out / PLAN).exists():
        raise UserError(
            f"{out} is not empty (it holds {found[0]}) and was not made by this command; "
            "choose another --out"
        )


def _is_saved(out: Path, plan: Plan, origin: dict[str, Any]) -> bool:
    try:
        with (out / INPUTS).open("rb") as file:
            pairs = zip_longest(file, (line + b"\n" for line in plan_lines(plan, origin)))
            return all(old == new for old, new in pairs)
    except OSError:
        return False


# ---- what differs ----------------------------------------------------------------------------


def _difference(out: Path, before: dict[str, Any], plan: Plan) -> str:
    """What differs between the plan in a folder and this one, in words."""
    if before.get("format") != FORMAT:
        return f"another version (format {before.get('format')!r}, now {FORMAT!r})"
    old, new = before.get("settings", {}), plan.settings()
    keys = [key for key in new if key != "shard_size" and old.get(key) != new[key]]
    parts = [f"{key} {old.get(key)}, not {new[key]}" for key in keys]
    if before.get("clips") != len(plan.clips):
        parts.append(f"{before.get('clips')} input clips, not {len(plan.clips)}")
    elif before.get("inputs") != plan.inputs:
        parts.append(f"other inputs ({_first_change(out, plan)})")
    elif old.get("shard_size") != new["shard_size"]:
        parts.append(f"shard_size {old.get('shard_size')}, not {new['shard_size']}")
    return " and ".join(parts) or "another plan"


def _first_change(out: Path, plan: Plan) -> str:
    """The first clip that is another than in the folder's plan, and in what."""
    try:
        old = load_plan(out)
    except UserError:
        return "ids, bounds, labels, captions or file sizes have changed"
    for a, b, before, now in zip(old.clips, plan.clips, old.sizes, plan.sizes, strict=True):
        for key in _COMPARED:
            if getattr(a, key) != getattr(b, key):
                return f"clip {a.id!r}: {key} {getattr(a, key)!r}, not {getattr(b, key)!r}"
        if before != now:
            return f"clip {a.id!r}: {_bytes(before)}, not {_bytes(now)}"
    return "the names of its pictures have changed"


def _bytes(sizes: Sizes) -> str:
    return " + ".join("no file" if size < 0 else f"{size} bytes" for size in sizes)
