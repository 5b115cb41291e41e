"""Makes what is missing of a plan in its folder, and writes the record once all is there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from video_prep.errors import UserError
from video_prep.files import remove_asides
from video_prep.index import Clip
from video_prep.keys import shard_name
from video_prep.report.record import MANIFEST, count_rows, entry_of, read_record, write_record
from video_prep.running.job import Job
from video_prep.running.plan import Plan
from video_prep.running.poison import forget_poison, read_poison
from video_prep.running.pool import Progress
from video_prep.running.progress import Bar
from video_prep.storage.shard_writer import read_index

# makes shards by their numbers; the second argument gives the clips of each
Engine = Callable[[Job, Callable[[int], Sequence[Clip]], Collection[int], Progress], None]
_TURNS = 5  # a turn more is needed where another run takes a shard away to make it again
_THREADS = 8  # that read indexes: a network file system answers many at once


def complete(
    job: Job, plan: Plan, numbers: Sequence[int], make: Engine, anew: bool = False
) -> dict[str, Any]:
    """Make those of the shards `numbers` that are not done; returns the counts of the manifest.

    The record is written where it is missing or no longer right; with `anew` in any case.

    Where other shards of the plan are not done afterwards, there is no record yet: the counts are
    those of `numbers`, and `left` is how many are not.
    """
    try:
        if anew:
            (job.out / MANIFEST).unlink(missing_ok=True)
        return _complete(job, plan, numbers, make)
    except OSError as error:
        raise UserError(
            f"cannot work in {job.out}: {error}; free some space or choose another folder"
        ) from error


def _complete(job: Job, plan: Plan, numbers: Sequence[int], make: Engine) -> dict[str, Any]:
    out = job.out
    remove_asides(out)
    whole = len(numbers) == plan.num_shards
    for _ in range(_TURNS):
        entries = _look(job, numbers)
        todo = [number for number in numbers if entries[number] is None]
        if todo:
            (out / MANIFEST).unlink(missing_ok=True)  # readers must not see a mixture
            _make(job, plan, numbers, todo, make)
        left = count_left(out, plan)
        if not left:
            if not todo and not whole:
                entries = _look(job, range(plan.num_shards))
            remove_asides(out)  # of workers that outlived a killed run by a moment
            counts = None if todo else read_record(out, plan, list(entries.values()))
            counts = counts or write_record(out, plan)
            if counts is not None:
                return counts
        if not whole:
            indexes = (read_index(out, number, plan.fingerprint) for number in numbers)
            counts = count_rows(index for index in indexes if index is not None)
            return {**counts, "left": max(left, 1)}
    raise UserError(
        f"shards of {out} are gone as soon as they are written; perhaps another run or another "
        "version changes them"
    )


def _make(job: Job, plan: Plan, numbers: Sequence[int], todo: list[int], make: Engine) -> None:
    total, left = (sum(len(plan.shard(k)) for k in some) for some in (numbers, todo))
    with Bar(total, left) as bar:
        make(job, plan.shard, todo, bar)


def _look(job: Job, numbers: Sequence[int]) -> dict[int, dict[str, Any] | None]:
    """The manifest's entry of each shard, None where it is to be made."""

    def entry(number: int) -> dict[str, Any] | None:
        if job.is_old(number):
            return None
        index = read_index(job.out, number, job.plan)
        return None if index is None else entry_of(index)

    with ThreadPoolExecutor(_THREADS) as threads:
        return dict(zip(numbers, threads.map(entry, numbers), strict=True))


def count_left(out: Path, plan: Plan) -> int:
    """How many shards have no index yet, by the names in the folder."""
    names = {path.name for path in out.iterdir()}
    return sum(f"{shard_name(number)}.json" not in names for number in range(plan.num_shards))


# ---- failed clips that are tried again -----------------------------------------------------


def to_retry(out: Path, plan: Plan, numbers: Iterable[int], retry: frozenset[str]) -> list[int]:
    """Those of the shards `numbers` that hold failed clips with a reason in `retry`.

    What workers died of for such a reason is forgotten.
    """
    forget_poison(out, retry)
    found: list[int] = []
    for number, row in _failed(out, plan, numbers):
        if {"all", row["reason"]} & retry and number not in found[-1:]:
            found.append(number)
    return found


def check_reasons(out: Path, plan: Plan, retry: frozenset[str]) -> None:
    """Refuse a reason that no failed clip has, with a UserError that lists those there are."""
    reasons = Counter(row["reason"] for _, row in _failed(out, plan, range(plan.num_shards)))
    reasons.update(why["reason"] for why in read_poison(out).values())
    for reason in sorted(retry - {"all", *reasons}):
        listed = ", ".join(f"{name} ({number})" for name, number in sorted(reasons.items()))
        raise UserError(
            f"--retry-failed {reason}: no failed clip in {out} has this reason; "
            f"there are: {listed or 'no failed clips'}"
        )


def _failed(out: Path, plan: Plan, numbers: Iterable[int]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Rows of failed clips with the number of their shard."""
    for number in numbers:
        index = read_index(out, number, plan.fingerprint) or {"rows": []}
        yield from ((number, row) for row in index["rows"] if row["status"] != "ok")
