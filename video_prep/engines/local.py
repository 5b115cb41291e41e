"""The engine of one machine: a supervised pool of worker processes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from video_prep.index import Clip
from video_prep.running.claims import Work
from video_prep.running.job import Job
from video_prep.running.pool import Pool, Progress


def make_shards(
    job: Job,
    clips: Callable[[int], Sequence[Clip]],
    numbers: Collection[int],
    progress: Progress,
    *,
    count: int,
) -> None:
    """Make the shards `numbers` in at most `count` workers; returns when all are there.

    `clips` gives the clips of a shard. What another run on the folder does is waited for.
    """

    def other(number: int) -> None:
        progress.other(len(clips(number)))

    work = Work(job.out, numbers, job.is_done, other)
    Pool(job, clips, work, min(count, len(numbers)), progress).run()
