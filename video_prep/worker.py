"""A worker process: takes shards from its stdin, writes them, and announces every clip first.

Started by the pool as `python -m video_prep.worker`. One JSON object a line in both directions;
the last thing a worker that dies has said names the clip that it died of.
"""

from __future__ import annotations

import importlib
import io
import json
import os
import queue
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from video_prep.errors import ClipError, UserError
from video_prep.keys import key_of
from video_prep.recipe import Recipe
from video_prep.shard_writer import ShardWriter, write_shard

_MOST_FLAC_CHANNELS = 8
_PR_SET_PDEATHSIG = 1
Tell = Callable[[dict[str, Any]], None]


def main() -> None:
    """Serve the pool until its pipe closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the pool's business
    _die_with_parent()
    events = os.fdopen(os.dup(1), "w", buffering=1, encoding="ascii")
    os.dup2(2, 1)  # what a decoder prints must not get between the events
    tasks: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(tasks,), daemon=True).start()
    job = tasks.get()
    _limit_memory(job["memory_mb"])

    def tell(event: dict[str, Any]) -> None:
        events.write(json.dumps(event) + "\n")

    try:
        decode = _find(job["decode"])
        recipe = Recipe(**job["recipe"])
        while True:
            task = tasks.get()
            make_shard(task, Path(job["out"]), job["plan"], recipe, decode, tell)
            tell({"shard": task["shard"]})
    except UserError as error:
        tell({"fatal": str(error)})


def _listen(tasks: queue.SimpleQueue[dict[str, Any]]) -> None:
    for line in sys.stdin:
        tasks.put(json.loads(line))
    os._exit(0)  # the pool is gone or has no more work, whatever the main thread does


def _die_with_parent() -> None:
    """Ask Linux to kill this process when the pool's is killed; elsewhere its pipe tells."""
    if sys.platform != "linux":
        return
    import ctypes

    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _limit_memory(megabytes: int | None) -> None:
    if megabytes is not None:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (megabytes << 20, megabytes << 20))


def _find(name: str) -> Callable[..., Any]:
    module, function = name.split(":")
    found: Callable[..., Any] = getattr(importlib.import_module(module), function)
    return found


def make_shard(
    task: dict[str, Any],
    out: Path,
    plan: str,
    recipe: Recipe,
    decode: Callable[..., Any],
    tell: Tell,
) -> None:
    """Write one shard: `task` has its number, its clips, and the reasons of those to leave out."""
    with write_shard(out, task["shard"], plan) as writer:
        for number, clip in enumerate(task["clips"]):
            tell({"begin": number})
            poison = task["poison"].get(clip["id"])
            if poison is not None:
                writer.fail(clip["id"], poison["reason"], poison["error"])
            tell({"end": number, "ok": poison is None and _prepare(clip, recipe, decode, writer)})


def _prepare(
    clip: dict[str, Any], recipe: Recipe, decode: Callable[..., Any], writer: ShardWriter
) -> bool:
    """Decode one clip into the shard; a clip that cannot be used becomes a row with its reason."""
    try:
        decoded = decode(clip["path"], clip["start"], clip["end"], recipe)
        members = _members(clip, decoded)
    except ClipError as error:
        reason, text = error.reason, str(error)
    except UserError:
        raise
    except MemoryError:
        reason, text = "out_of_memory", "the clip needs more memory than there is (--memory-mb)"
    except Exception as error:  # a decoder's own bug must cost this clip alone, and be named
        reason, text = "error", f"{type(error).__name__}: {error}"
    else:
        row = {"id": clip["id"], "key": key_of(clip["id"]), "flags": decoded.flags}
        writer.add(row, members)
        return True
    writer.fail(clip["id"], reason, " ".join(text.replace(clip["path"], clip["source"]).split()))
    return False


def _members(clip: dict[str, Any], decoded: Any) -> dict[str, bytes]:
    """Suffix -> bytes of a clip's members: frames, sound, facts."""
    members = {f"{k}.jpg": jpeg for k, jpeg in enumerate(decoded.frames)}
    suffix, data = encode_sound(decoded.wave, decoded.rate)
    members[suffix] = data
    facts = {key: clip[key] for key in ("id", "source", "start", "end", "labels", "captions")}
    facts |= {**decoded.facts, "flags": decoded.flags}
    members["json"] = json.dumps(facts, ensure_ascii=False, allow_nan=False).encode()
    return members


def encode_sound(wave: np.ndarray, rate: int) -> tuple[str, bytes]:
    """Suffix and bytes of int16 (channels, samples): FLAC, or WAV for more than 8 channels."""
    kind = "FLAC" if len(wave) <= _MOST_FLAC_CHANNELS else "WAV"
    buffer = io.BytesIO()
    soundfile.write(buffer, wave.T, rate, format=kind, subtype="PCM_16")
    return kind.lower(), buffer.getvalue()


if __name__ == "__main__":
    main()
