"""Supervises worker processes: a clip that crashes, hangs or eats memory costs that clip alone."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

from video_prep.errors import UserError
from video_prep.plan import Plan

_RECYCLE = 4000  # clips after which a worker is replaced, so that a decoder's leak stays small
_MOST_DEATHS = 3  # deaths in a row that no clip explains


class Progress(Protocol):
    """What the pool tells about its progress."""

    def clip(self, ok: bool) -> None:
        """One clip is through."""

    def again(self, ok: int, failed: int) -> None:
        """These clips of a shard are done again, because its worker died."""


@dataclass(eq=False)
class _Worker:
    process: subprocess.Popen[str]
    words: Any  # file with its stderr
    shard: int | None = None
    clip: int | None = None
    deadline: float = float("inf")
    ok: int = 0  # clips of the shard under way
    failed: int = 0
    clips: int = 0  # since it started
    late: bool = False
    listener: threading.Thread | None = None


@dataclass
class Pool:
    """Runs the shards `pending` of a plan in `count` workers and returns when all are written."""

    plan: Plan
    out: Path
    pending: deque[int]
    count: int
    timeout: float
    memory_mb: int | None
    progress: Progress
    decode: str
    _workers: list[_Worker] = field(default_factory=list)
    _events: queue.Queue[tuple[_Worker, str | None]] = field(default_factory=queue.Queue)
    _poison: dict[str, dict[str, str]] = field(default_factory=dict)
    _deaths: int = 0

    def run(self) -> None:
        """Work until every pending shard is there; always leaves no process and no aside file."""
        self._poison = read_poison(self.out)
        try:
            while self.pending or any(worker.shard is not None for worker in self._workers):
                self._hand_out()
                self._wait()
                self._kill_late()
        finally:
            for worker in list(self._workers):
                self._bury(worker)

    # ---- handing out -----------------------------------------------------------------------

    def _hand_out(self) -> None:
        for worker in list(self._workers):
            if worker.shard is None and (worker.clips >= _RECYCLE or not self.pending):
                self._bury(worker)
            elif worker.shard is None:
                self._give(worker, self.pending.popleft())
        while self.pending and len(self._workers) < self.count:
            self._give(self._start(), self.pending.popleft())

    def _start(self) -> _Worker:
        root = str(Path(__file__).resolve().parent.parent)
        paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
        settled = {"PYTHONPATH": os.pathsep.join(paths), "PYTHONSAFEPATH": "1"}
        settled |= {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
        words = tempfile.TemporaryFile()  # noqa: SIM115, lives as long as the worker
        process = subprocess.Popen(
            [sys.executable, "-m", "video_prep.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=words,
            text=True,
            env={**os.environ, **settled},
        )
        worker = _Worker(process, words)
        self._workers.append(worker)
        worker.listener = threading.Thread(target=self._listen, args=(worker,), daemon=True)
        worker.listener.start()
        job = {"out": str(self.out), "plan": self.plan.fingerprint, "decode": self.decode}
        recipe = {"recipe": asdict(self.plan.recipe), "memory_mb": self.memory_mb}
        _send(worker, job | recipe)
        return worker

    def _listen(self, worker: _Worker) -> None:
        assert worker.process.stdout is not None
        with worker.process.stdout as lines:
            for line in lines:
                self._events.put((worker, line))
        self._events.put((worker, None))

    def _give(self, worker: _Worker, shard: int) -> None:
        clips = [asdict(clip) | {"path": str(clip.path)} for clip in self.plan.shard(shard)]
        poison = {c["id"]: self._poison[c["id"]] for c in clips if c["id"] in self._poison}
        worker.shard, worker.ok, worker.failed = shard, 0, 0
        _send(worker, {"shard": shard, "clips": clips, "poison": poison})

    # ---- listening -------------------------------------------------------------------------

    def _wait(self) -> None:
        first = min((worker.deadline for worker in self._workers), default=float("inf"))
        try:
            worker, line = self._events.get(timeout=min(max(first - time.monotonic(), 0), 1.0))
        except queue.Empty:
            return
        if worker not in self._workers:
            return  # buried; these were its last words
        if line is None:
            self._on_death(worker)
        else:
            self._on_event(worker, json.loads(line))

    def _on_event(self, worker: _Worker, event: dict[str, Any]) -> None:
        if "begin" in event:
            worker.clip = event["begin"]
            worker.deadline = time.monotonic() + self.timeout
        elif "end" in event:
            worker.clip, worker.deadline = None, float("inf")
            worker.ok += event["ok"]
            worker.failed += not event["ok"]
            worker.clips += 1
            self.progress.clip(event["ok"])
        elif "shard" in event:
            worker.shard = None
            self._deaths = 0
        else:
            raise UserError(event["fatal"])

    def _kill_late(self) -> None:
        for worker in self._workers:
            if time.monotonic() > worker.deadline and not worker.late:
                worker.late = True
                worker.process.kill()  # its end arrives as an event

    def _on_death(self, worker: _Worker) -> None:
        status = worker.process.wait()
        words = _last_words(worker)
        self._bury(worker)
        if worker.shard is None:
            return
        self.progress.again(worker.ok, worker.failed)
        self.pending.appendleft(worker.shard)
        if worker.clip is not None:
            clip = self.plan.shard(worker.shard)[worker.clip]
            self._poison[clip.id] = _why(status, worker.late, self.timeout)
            append_poison(self.out, clip.id, self._poison[clip.id])
            return
        self._deaths += 1
        if self._deaths >= _MOST_DEATHS:
            raise UserError(
                f"workers end without a clip being the cause ({_status(status)}): "
                f"{words or 'no message'}; is the installation whole, is there memory?"
            )

    def _bury(self, worker: _Worker) -> None:
        """End a worker, and remove what it had begun to write."""
        self._workers.remove(worker)
        worker.process.kill()
        worker.process.wait()
        if worker.listener is not None:
            worker.listener.join()
        worker.words.close()
        if worker.process.stdin is not None:
            with suppress(OSError):  # unsent words to a dead worker
                worker.process.stdin.close()
        for leftover in self.out.glob(f".tmp-{worker.process.pid}-*"):
            leftover.unlink(missing_ok=True)


def _send(worker: _Worker, message: dict[str, Any]) -> None:
    assert worker.process.stdin is not None
    with suppress(OSError):  # it may have died; its end arrives as an event
        worker.process.stdin.write(json.dumps(message) + "\n")
        worker.process.stdin.flush()


def _last_words(worker: _Worker) -> str:
    worker.words.seek(0)
    lines = worker.words.read().decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else ""


def _status(status: int) -> str:
    if status >= 0:
        return f"exit status {status}"
    try:
        return signal.Signals(-status).name
    except ValueError:
        return f"signal {-status}"


def _why(status: int, late: bool, timeout: float) -> dict[str, str]:
    """Reason and text for the clip that a worker died of."""
    if late:
        return {"reason": "timeout", "error": f"not done after {timeout:g} s (--timeout)"}
    if status == -getattr(signal, "SIGKILL", 9):
        return {"reason": "killed", "error": "its worker was killed; perhaps memory ran out"}
    return {"reason": "crashed", "error": f"the decoder crashed ({_status(status)})"}


# ---- the record of such clips, so that a resumed run need not die of them again ------------


def read_poison(out: Path) -> dict[str, dict[str, str]]:
    """Clips known to kill or stall a worker: id -> reason and error."""
    path = out / "poison.jsonl"
    poison = {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            row = json.loads(line)
        except ValueError:
            continue  # the run was killed while it wrote this last line; the clip is tried again
        poison[row.pop("id")] = row
    return poison


def append_poison(out: Path, clip_id: str, why: dict[str, str]) -> None:
    """Remember a clip that a worker died of."""
    with (out / "poison.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps({"id": clip_id, **why}) + "\n")
        file.flush()
        os.fsync(file.fileno())
