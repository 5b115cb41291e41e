"""A worker process: takes shards from its stdin, and announces every clip first.

Started by the pool as `python -m video_prep.running.worker`. One JSON object a line in both
directions; the last thing a worker that dies has said names the clip that it died of.
"""

from __future__ import annotations

import importlib
import json
import os
import queue
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from video_prep.errors import ClipError, UserError
from video_prep.keys import key_of
from video_prep.recipe import Recipe
from video_prep.report.versions import merged, versions
from video_prep.storage.members import members_of
from video_prep.storage.reuse import OldShard
from video_prep.storage.shard_writer import ShardWriter, write_shard

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
        maker = _Maker(job, tell)
        while True:
            task = tasks.get()
            maker.make(task)
            tell({"shard": task["shard"]})
    except UserError as error:
        tell({"fatal": str(error)})


def _listen(tasks: queue.SimpleQueue[dict[str, Any]]) -> None:
    for line in sys.stdin:
        tasks.put(json.loads(line))
    os._exit(0)  # the pool is gone or has no more work, whatever the main thread does


def _die_with_parent() -> None:
    """Ask Linux to kill this process when the pool's is killed; elsewhere its pipe tells.

    The pool's process id is the only argument: it may have been killed before we could ask.
    """
    if sys.platform != "linux":
        return
    import ctypes

    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(sys.argv[1]):
        os._exit(0)


def _limit_memory(megabytes: int | None) -> None:
    if megabytes is not None:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (megabytes << 20, megabytes << 20))


def _find(name: str) -> Callable[..., Any]:
    module, function = name.split(":")
    found: Callable[..., Any] = getattr(importlib.import_module(module), function)
    return found


class _Maker:
    """Makes shards, and announces every clip before it touches it."""

    def __init__(self, job: dict[str, Any], tell: Tell) -> None:
        self._out, self._plan = Path(job["out"]), job["plan"]
        self._recipe = Recipe(**job["recipe"])
        self._decode = _find(job["decode"])
        self._retry = frozenset(job["retry"])
        self._versions = versions(self._recipe)
        self._tell = tell

    def make(self, task: dict[str, Any]) -> None:
        """Write one shard: `task` has its number, its clips, and the reasons of those to leave out.

        What is provably right of an old shard of this number is kept.
        """
        number = task["shard"]
        old = OldShard(self._out, number, self._plan, self._retry)
        with write_shard(self._out, number, self._plan, self._versions) as writer:
            for i, clip in enumerate(task["clips"]):
                self._tell({"begin": i})
                why = task["poison"].get(clip["id"])
                kept = None if why else self._keep(clip["id"], old, writer)
                ok = self._add(clip, why, writer) if kept is None else kept
                self._tell({"end": i, "ok": ok})

    def _keep(self, clip_id: str, old: OldShard, writer: ShardWriter) -> bool | None:
        """Take a clip over from the old shard; True ok, False failed, None must be tried."""
        row, usable = old.row(clip_id), old.members(clip_id)
        if row is not None:
            writer.rows.append(row)
        elif usable is not None:
            writer.add(*usable)
        else:
            return None
        writer.versions = merged([writer.versions, old.versions])
        return usable is not None

    def _add(self, clip: dict[str, Any], why: dict[str, str] | None, writer: ShardWriter) -> bool:
        """Decode one clip into the shard; one that cannot be used becomes a row with its reason."""
        try:
            if why is not None:  # a worker has died of it
                raise ClipError(why["reason"], why["error"])
            if "fault" in clip:
                raise ClipError(*clip["fault"])
            decoded = self._decoded(clip)
            members = members_of(clip, decoded, self._recipe)
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
        text = " ".join(text.replace(clip["path"], clip["source"]).split())
        writer.fail(clip["id"], reason, text)
        return False

    def _decoded(self, clip: dict[str, Any]) -> Any:
        if "frames" not in clip:
            return self._decode(clip["path"], clip["start"], clip["end"], self._recipe)
        from video_prep.decoding.extracted import read_extracted

        bounds = clip["start"], clip["end"]
        return read_extracted(clip["frames"], clip["path"], *bounds, self._recipe)


if __name__ == "__main__":
    main()
