"""Supervises workers: a clip that crashes, hangs or eats memory costs that clip alone."""

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
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

from video_prep.errors import UserError
from video_prep.files import remove_asides
from video_prep.index import Clip
from video_prep.running.claims import Work
from video_prep.running.job import Job
from video_prep.running.plan import clip_row
from video_prep.running.poison import append_poison, read_poison

_RECYCLE = 4000  # clips after which a worker is replaced, so that a decoder's leak stays small
_MOST_DEATHS = 3  # deaths in a row that no clip explains


class Progress(Protocol):
    """What is told about the progress of a run."""

    def clips(self, ok: int, failed: int) -> None:
        """So many clips are through."""

    def again(self, ok: int, failed: int) -> None:
        """These clips of a shard are done again, because its worker died."""

    def other(self, clips: int) -> None:
        """So many clips were done by another run."""


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
    poisoned: set[int] = field(default_factory=set)  # clips of the shard that it need not touch
    listener: threading.Thread | None = None


@dataclass
class Pool:
    """Does `work` in at most `count` workers and returns when all its shards are written.

    `clips` gives the clips of a shard by its number.
    """

    job: Job
    clips: Callable[[int], Sequence[Clip]]
    work: Work
    count: int
    progress: Progress
    _workers: list[_Worker] = field(default_factory=list)
    _events: queue.Queue[tuple[_Worker, str | None]] = field(default_factory=queue.Queue)
    _deaths: int = 0

    def run(self, keep: bool = False) -> None:
        """Work until every shard of `work` is there; leaves no process and no aside file.

        With `keep` the workers stay, idle, for a further run with other `work` and `clips`.
        """
        done = False
        try:
            while self.work:
                self._hand_out()
                self._wait()
                self._kill_late()
                self.work.beat()
            done = True
        finally:
            for worker in [] if keep and done else list(self._workers):
                self._bury(worker)
            self.work.close()

    # ---- handing out -----------------------------------------------------------------------

    def _hand_out(self) -> None:
        for worker in list(self._workers):
            if worker.shard is None and worker.clips >= _RECYCLE:
                self._bury(worker)
        idle = [worker for worker in self._workers if worker.shard is None]
        while idle or len(self._workers) < self.count:
            shard = self.work.next()
            if shard is None:
                return
            self._give(idle.pop() if idle else self._start(), shard)

    def _start(self) -> _Worker:
        root = str(Path(__file__).resolve().parents[2])
        paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
        settled = {"PYTHONPATH": os.pathsep.join(paths), "PYTHONSAFEPATH": "1"}
        settled |= {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
        words = tempfile.TemporaryFile()  # noqa: SIM115, lives as long as the worker
        process = subprocess.Popen(
            [sys.executable, "-m", "video_prep.running.worker", str(os.getpid())],
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
        job = self.job
        told: dict[str, Any] = {"out": str(job.out), "plan": job.plan, "decode": job.decode}
        told |= {"memory_mb": job.memory_mb, "retry": sorted(job.retry)}
        _send(worker, told | {"recipe": asdict(job.recipe)})
        return worker

    def _listen(self, worker: _Worker) -> None:
        assert worker.process.stdout is not None
        with worker.process.stdout as lines:
            for line in lines:
                self._events.put((worker, line))
        self._events.put((worker, None))

    def _give(self, worker: _Worker, shard: int) -> None:
        clips = [clip_row(clip) for clip in self.clips(shard)]
        known = read_poison(self.job.out)  # another run may have died of a clip of this shard
        poison = {c["id"]: known[c["id"]] for c in clips if c["id"] in known}
        worker.shard, worker.clip, worker.ok, worker.failed = shard, None, 0, 0
        worker.poisoned = {i for i, clip in enumerate(clips) if clip["id"] in poison}
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
            worker.deadline = time.monotonic() + self.job.timeout
        elif "end" in event:
            worker.clip, worker.deadline = None, float("inf")
            worker.ok += event["ok"]
            worker.failed += not event["ok"]
            worker.clips += 1
            self.progress.clips(int(event["ok"]), int(not event["ok"]))
        elif "shard" in event:
            self.work.done(event["shard"])
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
        self.work.back(worker.shard)
        if worker.clip is not None and worker.clip not in worker.poisoned:
            clip = self.clips(worker.shard)[worker.clip]
            why = _why(status, worker.late, self.job.timeout)
            append_poison(self.job.out, clip.id, why)
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
        remove_asides(self.job.out, worker.process.pid)


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
