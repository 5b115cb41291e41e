"""Jobs of the demo: Pivot's own commands with what they wait for, run side by side in processes."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from importlib import import_module
from multiprocessing import active_children, get_context
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from pivot.errors import RunError, UserError
from video_prep.files import write_json

_BLAS_THREADS = "OPENBLAS_NUM_THREADS"  # of numpy; torch is told when a job begins


@dataclass(frozen=True)
class Job:
    """One command of Pivot: its function, settings, and the jobs that must be done before it."""

    name: str
    function: str  # module:function, called with the settings
    settings: BaseModel
    needs: tuple[str, ...] = ()


def run_jobs(
    jobs: Sequence[Job],
    out: Path,
    workers: int,
    tell: Callable[[str, float, int], None],
    watch: Callable[[list[str]], None],
) -> dict[str, float]:
    """Run all jobs, at most `workers` at once; returns the seconds that each took.

    What a job prints goes to OUT/logs/NAME.txt. A job that has its mark in OUT/done is not run
    again. `tell(name, seconds, jobs_left)` is called when a job ends, `watch(names)` about once a
    second with those that run. The first failure stops the rest and is raised with the job's name.
    """
    seconds = {job.name: took for job in jobs if (took := _done(out, job)) is not None}
    open_jobs = [job for job in jobs if job.name not in seconds]
    running: dict[Future[float], Job] = {}
    with _pool(workers) as pool:
        while open_jobs or running:
            ready = [job for job in open_jobs if all(need in seconds for need in job.needs)]
            for job in ready[: workers - len(running)]:
                open_jobs.remove(job)
                running[pool.submit(work, job, out / "logs" / f"{job.name}.txt")] = job
            finished, _ = wait(running, timeout=1.0, return_when=FIRST_COMPLETED)
            for future in finished:
                job = running.pop(future)
                seconds[job.name] = _result(future, job, out)
                write_json(_mark(out, job), {"seconds": seconds[job.name], "settings": _key(job)})
                tell(job.name, seconds[job.name], len(open_jobs) + len(running))
            watch([job.name for job in running.values()])
    return seconds


def work(job: Job, log: Path) -> float:
    """Run a job in this process, on one thread, with all that it prints in `log`."""
    import torch  # a worker imports it once and keeps it for its next jobs

    torch.set_num_threads(1)
    start = time.perf_counter()
    log.parent.mkdir(parents=True, exist_ok=True)
    module, _, name = job.function.partition(":")
    with log.open("w", encoding="utf-8") as file, _printing_to(file.fileno()):
        status = getattr(import_module(module), name)(job.settings)
    if status:
        raise RunError(f"{job.name} ended with status {status}; see {log}")
    return round(time.perf_counter() - start, 1)


@contextlib.contextmanager
def _pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    """Fresh processes; those at work are ended at once when the block is left by an error."""
    pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"))
    before = os.environ.get(_BLAS_THREADS)
    os.environ[_BLAS_THREADS] = "1"  # numpy's library reads it when a worker starts
    try:
        yield pool
    except BaseException:
        for process in active_children():
            process.terminate()
        pool.shutdown(cancel_futures=True)
        raise
    finally:
        os.environ.pop(_BLAS_THREADS)
        if before is not None:
            os.environ[_BLAS_THREADS] = before
    pool.shutdown()


@contextlib.contextmanager
def _printing_to(descriptor: int) -> Iterator[None]:
    """Send the file descriptors 1 and 2, and so the prints of all libraries, to a file."""
    sys.stdout.flush()
    sys.stderr.flush()
    saved = [os.dup(1), os.dup(2)]
    try:
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for number, copy in enumerate(saved, start=1):
            os.dup2(copy, number)
            os.close(copy)


def _result(future: Future[float], job: Job, out: Path) -> float:
    log = out / "logs" / f"{job.name}.txt"
    try:
        return future.result()
    except UserError as error:
        raise type(error)(f"{job.name}: {error}") from error
    except BrokenProcessPool as error:
        raise RunError(
            f"{job.name}: its process was killed (out of memory?); see {log}, "
            "then run again with --resume"
        ) from error


def _mark(out: Path, job: Job) -> Path:
    return out / "done" / f"{job.name}.json"


def _key(job: Job) -> Any:
    return json.loads(job.settings.model_dump_json())


def _done(out: Path, job: Job) -> float | None:
    """Seconds that a finished job took, or None; other settings than now are not finished."""
    mark = _mark(out, job)
    if not mark.exists():
        return None
    told = json.loads(mark.read_text())
    return float(told["seconds"]) if told["settings"] == _key(job) else None
