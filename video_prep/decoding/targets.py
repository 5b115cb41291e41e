"""Which frames are taken: equally spaced times, the frames on screen then, or keyframes near."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from fractions import Fraction

from video_prep.decoding.packets import PacketIndex


def target_times(first: Fraction, last: Fraction, count: int, policy: str) -> list[Fraction]:
    """`count` equally spaced times in [first, last] seconds.

    midpoints: the middle of each of `count` equal pieces. endpoints: both ends included, as
    audioset-dl did (`b + i * (e - b) / (count - 1)`); the last is then clamped to the last frame.
    """
    length = last - first
    if policy == "midpoints":
        return [first + length * (2 * i + 1) / (2 * count) for i in range(count)]
    return [first + length * i / max(count - 1, 1) for i in range(count)]


def at_or_before(index: PacketIndex, times: list[int], wanted: list[Fraction]) -> list[int]:
    """For each time the stamp of the frame on screen then: the last that began at or before it."""
    chosen = []
    for moment in wanted:
        stamp = (moment + index.origin) / index.time_base
        chosen.append(times[max(bisect_right(times, stamp) - 1, 0)])
    return chosen


def snapped(index: PacketIndex, chosen: list[int], within: float) -> list[int]:
    """For each frame the nearest keyframe within so many seconds, where there is one.

    Frames that were distinct stay so, and in order; without known display times none is moved.
    """
    if within <= 0 or index.guessed:
        return chosen
    keys = sorted(pts for _, pts in index.keys if pts in index.shown)
    reach = int(Fraction(within) / index.time_base)
    taken: list[int] = []
    for i, pts in enumerate(chosen):
        if i and pts == chosen[i - 1]:
            taken.append(taken[-1])
            continue
        low = max(pts - reach, taken[-1] + 1) if taken else pts - reach
        later = [other for other in chosen[i + 1 :] if other > pts]
        high = min([pts + reach, *(later[0] - 1 for _ in later[:1])])
        near = keys[bisect_left(keys, low) : bisect_right(keys, high)]
        taken.append(min(near, key=lambda key: (abs(key - pts), key), default=pts))
    return taken
