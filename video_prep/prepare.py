"""prepare-frames and prepare-audio: plan, run what is missing, write the record, say one line."""

from __future__ import annotations

import json
import sys
import time
from collections import Counter, deque
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tqdm import tqdm

from video_prep.errors import NothingUsableError
from video_prep.files import whole_file, write_json
from video_prep.index import AUDIO, VIDEO, read_clips
from video_prep.keys import shard_name
from video_prep.plan import Plan, claimed, is_done, make_plan
from video_prep.pool import Pool
from video_prep.settings import PrepareAudio, PrepareFrames
from video_prep.shards import FORMAT, content_fingerprint, read_json

_INTERRUPTED = 130


def run(settings: PrepareFrames) -> int:
    """Prepare videos; returns the exit status."""
    return _run("prepare-frames", settings, VIDEO)


def run_audio(settings: PrepareAudio) -> int:
    """Prepare audio-only files; returns the exit status."""
    return _run("prepare-audio", settings, AUDIO)


def _run(command: str, settings: PrepareAudio, suffixes: frozenset[str]) -> int:
    begun = time.monotonic()
    clips = read_clips(settings.source, suffixes)
    plan = make_plan(command, settings.recipe(), settings.shard_size, clips)
    try:
        counts = prepare(plan, settings)
    except KeyboardInterrupt:
        done = sum(is_done(Path(settings.out), k, plan) for k in range(plan.num_shards))
        print(
            f"stopped: {done} of {plan.num_shards} shards are done; "
            "run the same command again to go on",
            file=sys.stderr,
        )
        return _INTERRUPTED
    print(summary(counts, settings.out, time.monotonic() - begun))
    return 0


def prepare(
    plan: Plan, settings: PrepareAudio, decode: str = "video_prep.decode:decode_clip"
) -> dict[str, Any]:
    """Make what is missing of the plan in `settings.out`; returns the counts of the manifest.

    `decode` names the function that workers call on a clip (tests put faults there).
    """
    out = Path(settings.out)
    with claimed(out, plan):
        pending = [number for number in range(plan.num_shards) if not is_done(out, number, plan)]
        if pending:
            (out / "manifest.json").unlink(missing_ok=True)  # readers must not see a mixture
            with _Bar(len(plan.clips), sum(len(plan.shard(k)) for k in pending)) as bar:
                workers = min(settings.worker_count(), len(pending))
                tasks = deque(pending)
                pool = Pool(
                    plan, out, tasks, workers, settings.timeout, settings.memory_mb, bar, decode
                )
                pool.run()
        if pending or not (out / "manifest.json").exists():
            finish(out, plan)
        counts: dict[str, Any] = read_json(out / "manifest.json")["counts"]
    if not counts["prepared"]:
        raise NothingUsableError(
            f"none of {counts['clips']} clips could be prepared ({_listed(counts['reasons'])}); "
            f"each is named in {out / 'failures.jsonl'}"
        )
    return counts


class _Bar:
    """Progress on stderr: clips, clips/s, time left, failures so far."""

    def __init__(self, total: int, left: int) -> None:
        self._bar = tqdm(
            total=total, initial=total - left, unit="clip", desc="prepare", disable=None
        )
        self._failed = 0

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def clip(self, ok: bool) -> None:
        """One clip is through."""
        if not ok:
            self._failed += 1
            self._bar.set_postfix(failed=self._failed, refresh=False)
        self._bar.update()

    def again(self, ok: int, failed: int) -> None:
        """These clips are done again."""
        self._failed -= failed
        self._bar.update(-ok - failed)


# ---- the record ----------------------------------------------------------------------------


def finish(out: Path, plan: Plan) -> None:
    """Write clips.jsonl, failures.jsonl and, last, manifest.json from the shards' indexes.

    They depend on the shards alone, so an interrupted run ends with the same bytes.
    """
    shards: list[dict[str, Any]] = []
    reasons, flags, prepared = Counter[str](), Counter[str](), 0
    with whole_file(out / "clips.jsonl") as clips, whole_file(out / "failures.jsonl") as failures:
        for number in range(plan.num_shards):
            index = read_json(out / f"{shard_name(number)}.json")
            keys = ("clips", "bytes", "sha256")
            shards.append({"name": shard_name(number), **{key: index[key] for key in keys}})
            for row in _rows(out, index):
                line = json.dumps(row, ensure_ascii=False).encode() + b"\n"
                clips.write(line)
                prepared += row["status"] == "ok"
                flags.update(row["flags"])
                if row["status"] != "ok":
                    failures.write(line)
                    reasons[row["reason"]] += 1
    counts: dict[str, Any] = {
        "clips": len(plan.clips),
        "prepared": prepared,
        "failed": reasons.total(),
    }
    counts |= {"reasons": dict(sorted(reasons.items())), "flags": dict(sorted(flags.items()))}
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
        "versions": versions(),
        "shards": shards,
    }
    (out / "poison.jsonl").unlink(missing_ok=True)  # its rows are in failures.jsonl now
    write_json(out / "manifest.json", manifest)


def _rows(out: Path, index: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """One row per input of a shard, with the facts that its tar holds."""
    with (out / index["tar"]).open("rb") as tar:
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
                "shard": Path(index["tar"]).stem,
                "key": row.get("key"),
                "flags": row.get("flags", []),
                "facts": facts,
            }


def versions() -> dict[str, str]:
    """Versions of what decodes and encodes."""
    import av

    packages = ("av", "numpy", "simplejpeg", "soundfile", "soxr")
    found = {name: version(name) for name in packages}
    return found | {"ffmpeg": av.ffmpeg_version_info, "python": sys.version.split()[0]}


def summary(counts: dict[str, Any], out: str, seconds: float) -> str:
    """The last line of a run."""
    shards = counts["shards"]
    line = (
        f"prepared {counts['prepared']} of {counts['clips']} clips into {out} ({shards} "
        f"shard{'s' * (shards != 1)}, {_size(counts['bytes'])}) in {seconds:.0f} s"
    )
    if not counts["failed"]:
        return line
    return (
        f"{line}; {counts['failed']} failed ({_listed(counts['reasons'])}), "
        f"named with reasons in {Path(out) / 'failures.jsonl'}"
    )


def _listed(reasons: dict[str, int]) -> str:
    return ", ".join(f"{number} {reason}" for reason, number in reasons.items())


def _size(count: int) -> str:
    return f"{count / 1e6:.0f} MB" if count >= 1e6 else f"{count / 1e3:.0f} kB"
