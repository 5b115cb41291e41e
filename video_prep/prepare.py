"""prepare-frames and prepare-audio: plan, do what is missing, say what came of it."""

from __future__ import annotations

import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from video_prep.engines import local, ray_tasks, slurm
from video_prep.errors import NothingUsableError, UserError
from video_prep.index import AUDIO, VIDEO, Clip, find_clips
from video_prep.report.summary import table
from video_prep.running.complete import Engine, check_reasons, complete, count_left, to_retry
from video_prep.running.folder import join
from video_prep.running.job import DECODE, Job, stamp
from video_prep.running.plan import Plan, load_plan, make_plan, origin_of, saved_plan
from video_prep.settings import PrepareAudio, PrepareFrames, Verify, WorkerSettings
from video_prep.storage.remote import refuse_url

_INTERRUPTED, _TOO_MANY_FAILED = 130, 1
# (source, its clips, lists) -> the clips that are in none of the lists
Exclude = Callable[[str, list[Clip], tuple[str, ...]], list[Clip]]


def run(settings: PrepareFrames, exclude: Exclude | None = None) -> int:
    """Prepare videos; returns the exit status. `exclude` leaves out what settings.exclude lists."""
    return _run("prepare-frames", settings, VIDEO, exclude)


def run_audio(settings: PrepareAudio, exclude: Exclude | None = None) -> int:
    """Prepare audio-only files, as `run` does videos; returns the exit status."""
    return _run("prepare-audio", settings, AUDIO, exclude)


def _run(
    command: str, settings: PrepareAudio, suffixes: frozenset[str], exclude: Exclude | None
) -> int:
    begun = time.monotonic()
    refuse_url(settings.out)
    if settings.engine == "slurm":
        slurm.check(settings)
    plan = planned(command, settings, suffixes, exclude)
    if settings.engine == "slurm":
        return slurm.hand_in(command, plan, settings)
    try:
        with _stopped_by_sigterm():
            counts = prepare(plan, settings)
    except KeyboardInterrupt:
        done = plan.num_shards - count_left(Path(settings.out), plan)
        print(
            f"stopped: {done} of {plan.num_shards} shards are done; "
            "run the same command again to go on",
            file=sys.stderr,
        )
        return _INTERRUPTED
    print(table(counts), end="\n" * bool(table(counts)))
    print(summary(counts, settings, plan.num_shards, time.monotonic() - begun))
    return exit_status(counts, settings)


def planned(
    command: str,
    settings: PrepareAudio,
    suffixes: frozenset[str],
    exclude: Exclude | None = None,
) -> Plan:
    """The plan of a run, with its folder begun; for a part of the shards the saved one will do."""
    out, recipe = Path(settings.out), settings.recipe()
    origin = _origin(settings)
    plan = None
    if settings.shards is not None or settings.retry_failed:
        _bounds(settings.shards)  # a mistake is told before a source is scanned
        plan = saved_plan(out, command, recipe, settings.shard_size, origin)
    if plan is None:
        found = find_clips(
            settings.source,
            suffixes,
            media=settings.media,
            already_cut=settings.already_cut,
            ontology=settings.ontology,
        )
        dataset = None if found.dataset is None else found.dataset.facts()
        clips = found.clips
        if settings.exclude:
            if exclude is None:
                raise UserError("--exclude needs Pivot's reader of lists; use pivot prepare-audio")
            clips = exclude(settings.source, clips, settings.exclude)
        plan = make_plan(command, recipe, settings.shard_size, clips, dataset)
    _numbers(settings.shards, plan)
    plan = join(out, plan, origin)
    if settings.retry_failed and settings.shards is None:
        check_reasons(out, plan, frozenset(settings.retry_failed))
    return plan


def _origin(settings: PrepareAudio) -> dict[str, Any]:
    return origin_of(
        settings.source,
        settings.media,
        settings.ontology,
        settings.already_cut,
        settings.exclude,
    )


def prepare(plan: Plan, settings: PrepareAudio, decode: str = DECODE) -> dict[str, Any]:
    """Make what is missing of the plan in `settings.out`; returns the counts of the manifest.

    With `settings.shards` those alone: while others are missing, the counts are theirs and `left`
    is how many. `decode` names the function that workers call on a clip (tests put faults there).
    """
    out = Path(settings.out)
    join(out, plan, _origin(settings))
    numbers = _numbers(settings.shards, plan)
    retry = frozenset(settings.retry_failed)
    again = to_retry(out, plan, numbers, retry) if retry else []
    job = _job(out, plan, settings, again, retry, decode)
    counts = complete(job, plan, numbers, _engine(settings))
    if not counts["prepared"] and "left" not in counts:
        raise NothingUsableError(
            f"none of {counts['clips']} clips could be prepared ({_listed(counts['reasons'])}); "
            f"each is named in {out / 'failures.jsonl'}"
        )
    return counts


def redo(
    out: Path,
    settings: WorkerSettings,
    numbers: Collection[int],
    retry: frozenset[str] = frozenset(),
    decode: str = DECODE,
) -> dict[str, Any]:
    """Make shards of the plan saved in `out` again, and all that are missing; write the record.

    Keeps what is provably right of them, but for failed clips with a reason in `retry`. Returns
    the counts of the manifest.
    """
    plan = load_plan(out)
    job = _job(out, plan, settings, numbers, retry, decode)
    return complete(job, plan, range(plan.num_shards), _local(settings), anew=True)


def _job(
    out: Path,
    plan: Plan,
    settings: WorkerSettings,
    again: Collection[int],
    retry: frozenset[str],
    decode: str,
) -> Job:
    stamps = {number: stamp(out, number) for number in again}
    limits = settings.timeout, settings.memory_mb
    return Job(out.absolute(), plan.fingerprint, plan.recipe, *limits, decode, retry, stamps)


def _engine(settings: PrepareAudio) -> Engine:
    if settings.engine == "ray":
        return partial(ray_tasks.make_shards, count=settings.workers, address=settings.ray_address)
    return _local(settings)


def _local(settings: WorkerSettings) -> Engine:
    return partial(local.make_shards, count=settings.worker_count())


def _bounds(shards: str | None) -> tuple[int, int] | None:
    """First and end of --shards FIRST:END."""
    if shards is None:
        return None
    found = re.fullmatch(r"([0-9]{1,9}):([0-9]{1,9})", shards)
    if not found or int(found[1]) >= int(found[2]):
        raise UserError(
            f"--shards {shards!r} is not FIRST:END, two numbers such as 0:4 (END not included)"
        )
    return int(found[1]), int(found[2])


def _numbers(shards: str | None, plan: Plan) -> Sequence[int]:
    """Numbers of the shards that a run is to do."""
    first, end = _bounds(shards) or (0, plan.num_shards)
    if end > plan.num_shards:
        raise UserError(
            f"--shards {shards}: the plan has {plan.num_shards} shards; END can be "
            f"{plan.num_shards} at most"
        )
    return range(first, end)


@contextmanager
def _stopped_by_sigterm() -> Iterator[None]:
    """Stop as cleanly for a job scheduler's SIGTERM as for Ctrl-C."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may take signals
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


# ---- what is said at the end ---------------------------------------------------------------


def summary(counts: dict[str, Any], settings: PrepareAudio, shards: int, seconds: float) -> str:
    """The last line of a run over a plan of `shards` shards."""
    out = settings.out
    line = f"prepared {counts['prepared']} of {counts['clips']} clips into {out}"
    if "left" in counts:
        failed = f"; {counts['failed']} failed ({_listed(counts['reasons'])})"
        return (
            f"{line} (shards {settings.shards}) in {seconds:.0f} s{failed * bool(counts['failed'])}"
            f"; {counts['left']} of {shards} shards are left in all"
        )
    line += f" ({shards} shard{'s' * (shards != 1)}, {_size(counts['bytes'])}) in {seconds:.0f} s"
    if not counts["failed"]:
        return line
    return (
        f"{line}; {counts['failed']} failed ({_listed(counts['reasons'])}), "
        f"named with reasons in {Path(out) / 'failures.jsonl'}"
    )


def exit_status(counts: dict[str, Any], settings: PrepareAudio | Verify) -> int:
    """Exit status: 1 and a line where more clips failed than --max-fail allows."""
    share = counts["failed"] / max(counts["clips"], 1)
    if settings.max_fail is None or share <= settings.max_fail:
        return 0
    print(
        f"{counts['failed']} of {counts['clips']} clips failed ({100 * share:.3g} %), more than "
        f"--max-fail {settings.max_fail:g} allows; see failures.jsonl in {settings.out}",
        file=sys.stderr,
    )
    return _TOO_MANY_FAILED


def _listed(reasons: dict[str, int]) -> str:
    return ", ".join(f"{number} {reason}" for reason, number in reasons.items())


def _size(count: int) -> str:
    return f"{count / 1e6:.0f} MB" if count >= 1e6 else f"{count / 1e3:.0f} kB"
