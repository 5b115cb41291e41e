"""The engine of a Ray cluster: every task makes a batch of shards in a supervised worker.

Needs the extra `ray`, and an output folder and sources that all nodes see under the same names.
"""

from __future__ import annotations

import os
import socket
import tempfile
from collections import deque
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

from video_prep.errors import UserError
from video_prep.files import remove_asides
from video_prep.index import Clip
from video_prep.report.record import count_rows
from video_prep.running.claims import Work
from video_prep.running.job import Job
from video_prep.running.pool import Pool, Progress
from video_prep.settings import cores
from video_prep.storage.shard_writer import read_index

_BATCHES = 8  # tasks a CPU, so that all end at about the same time
_MOST = 16  # shards a task
_KEPT: list[Pool] = []  # in a Ray worker, which serves one run: its pool, for the next task
_ANSWER = 10.0  # seconds in which a cluster must answer
_RETRIES = 3  # of a task whose Ray worker is killed; its shards that are there stay
_AHEAD = 2  # tasks handed to Ray for each CPU: their clips are in memory


def make_shards(
    job: Job,
    clips: Callable[[int], Sequence[Clip]],
    numbers: Collection[int],
    progress: Progress,
    *,
    count: int | None,
    address: str,
) -> None:
    """Make the shards `numbers` on the Ray cluster at `address`; returns when all are there.

    `auto` joins the cluster that runs here, `local` starts one with `count` CPUs; at most `count`
    tasks run at a time. A Ray worker that is killed costs a repetition, a clip that kills its
    decoder costs that clip, as everywhere.
    """
    ray = _joined(address, count)
    try:
        size = min(max(len(numbers) // (_cpus(ray) * _BATCHES), 1), _MOST)
        ordered = list(numbers)
        batches = deque(ordered[i : i + size] for i in range(0, len(ordered), size))
        task = ray.remote(num_cpus=1, max_retries=_RETRIES)(make_batch)
        running: dict[Any, list[int]] = {}
        while batches or running:
            most = count or _cpus(ray) * _AHEAD  # a cluster may grow
            while batches and len(running) < most:
                batch = batches.popleft()
                running[task.remote(job, {n: list(clips(n)) for n in batch})] = batch
            done, _ = ray.wait(list(running), timeout=5.0)
            for reference in done:
                _collect(ray, reference, job, running.pop(reference), progress)
    finally:
        ray.shutdown()


def make_batch(job: Job, clips: dict[int, Sequence[Clip]]) -> None:
    """What a task does: the shards of `clips`, one after another, in one supervised worker."""
    if not job.out.is_dir():
        raise UserError(
            f"{job.out} does not exist on {os.uname().nodename}; with --engine ray, --out must be "
            "a folder that all nodes see"
        )
    remove_asides(job.out)  # of a Ray worker that was killed
    work = Work(job.out, list(clips), job.is_done)
    pool = _KEPT.pop() if _KEPT else Pool(job, clips.__getitem__, work, 1, _Silent())
    pool.work, pool.clips = work, clips.__getitem__
    pool.run(keep=True)
    _KEPT.append(pool)


class _Silent:
    """Progress inside a task: the caller counts when the task is through."""

    def clips(self, ok: int, failed: int) -> None:
        """Nothing."""

    def again(self, ok: int, failed: int) -> None:
        """Nothing."""

    def other(self, clips: int) -> None:
        """Nothing."""


def _cpus(ray: Any) -> int:
    return max(int(ray.cluster_resources().get("CPU", 1)), 1)


def _joined(address: str, count: int | None) -> Any:
    """The module ray, joined to a cluster."""
    try:
        import ray
    except ImportError:
        raise UserError(
            "--engine ray needs Ray; install it with pip install 'pivot-audio[ray]'"
        ) from None
    if ray.is_initialized():
        raise UserError(
            "--engine ray: this process has joined a Ray cluster already; leave it first"
        )
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if address == "local":
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        ray.init("local", num_cpus=count or cores(), include_dashboard=False, **quiet)
        return ray
    try:
        _answers(address)
        ray.init(address, **quiet)
    except (ConnectionError, ValueError, RuntimeError, OSError) as error:
        why = " ".join(str(error).split())
        raise UserError(
            f"--ray-address {address}: no Ray cluster can be joined ({why[:120]}); start one with "
            "`ray start --head`, or give --ray-address local"
        ) from None
    return ray


def _answers(address: str) -> None:
    """Raise OSError where nothing listens: Ray itself would try for minutes, and print a lot.

    `auto` is the cluster that RAY_ADDRESS names, or the one that Ray has written down.
    """
    if address == "auto":
        folder = os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()
        noted = Path(folder, "ray/ray_current_cluster")
        address = os.environ.get("RAY_ADDRESS") or (noted.read_text() if noted.exists() else "")
    host, _, port = address.strip().rpartition("://")[2].rpartition(":")
    if port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=_ANSWER).close()


def _collect(ray: Any, reference: Any, job: Job, batch: list[int], progress: Progress) -> None:
    """See that a task made its shards, and count their clips."""
    try:
        ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        cause = error.cause
        if isinstance(cause, UserError):
            raise UserError(str(cause)) from None
        raise
    except ray.exceptions.RayError as error:
        why = str(error).strip().splitlines()[0]
        raise UserError(
            f"the Ray task of shards {batch[0]} to {batch[-1]} was lost ({type(error).__name__}: "
            f"{why}); run the same command again to go on"
        ) from None
    for number in batch:
        index = read_index(job.out, number, job.plan)
        if index is None:
            raise UserError(
                f"shard {number} is not in {job.out} though its Ray task is through; with "
                "--engine ray, --out must be a folder that all nodes see"
            )
        counts = count_rows([index])
        progress.clips(counts["prepared"], counts["failed"])
