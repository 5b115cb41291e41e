"""CPU time of candidates that take turns, so that a busy machine slows all of them alike."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
from statistics import median


def cpu_seconds() -> float:
    """User and system time of this process and of its finished children."""
    both = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in both)


def median_turns(
    candidates: dict[str, Callable[[], float]], seconds: float, least: int
) -> dict[str, float]:
    """Median of what each candidate returns, over turns within the budget (at least `least`)."""
    turns: dict[str, list[float]] = {name: [] for name in candidates}
    end, done = time.perf_counter() + seconds, 0
    while done < least or time.perf_counter() < end:
        for name, candidate in candidates.items():
            turns[name].append(candidate())
        done += 1
    return {name: median(values) for name, values in turns.items()}
