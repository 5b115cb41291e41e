"""Pairs found so far, in a nameless file: counted, cut to a number or caps, then written.

A hit is (sound, caption, score), 12 bytes. The file lies beside the one to be written and has no
name, so it goes with the process; memory holds some blocks of it, and a bit or two a hit.
"""

from __future__ import annotations

import os
import tempfile
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

HIT = np.dtype([("sound", "<i4"), ("caption", "<i4"), ("score", "<f4")])
AT_ONCE = 2**22  # hits held at a time
Block = NDArray[np.void]  # hits (h,) of type HIT


class Hits:
    """Hits of rising sounds; of one sound by falling score, equal scores by rising caption."""

    def __init__(self, folder: str | Path) -> None:
        """`folder` is where the file lies; it is made if missing."""
        Path(folder).mkdir(parents=True, exist_ok=True)
        self.file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 it lives as long as this
        weakref.finalize(self, self.file.close)
        self.blocks: list[int] = []  # hits of each block: whole sounds, in their order

    def __len__(self) -> int:
        """Number of hits."""
        return sum(self.blocks)

    def add(
        self,
        sound: NDArray[np.integer],
        caption: NDArray[np.integer],
        score: NDArray[np.floating],
    ) -> None:
        """Add the hits (h,) of the next sounds; all hits of a sound come together."""
        block = np.empty(len(sound), HIT)
        block["sound"], block["caption"], block["score"] = sound, caption, score
        self._append(block)

    def _append(self, block: Block) -> None:
        if len(block):
            self.file.seek(0, os.SEEK_END)
            self.file.write(block.tobytes())
            self.blocks.append(len(block))

    def __iter__(self) -> Iterator[Block]:
        """The hits, some blocks of whole sounds at a time."""
        start, held = 0, 0
        for number, count in enumerate(self.blocks):
            held += count
            last = number + 1 == len(self.blocks)
            if last or held + self.blocks[number + 1] > AT_ONCE:
                yield self._read(start, held)
                start, held = start + held, 0

    def _read(self, start: int, count: int) -> Block:
        self.file.seek(start * HIT.itemsize)
        found: Block = np.frombuffer(self.file.read(count * HIT.itemsize), HIT)
        return found

    def kept(self, keep: Callable[[Block], NDArray[np.bool_]], folder: str | Path) -> Hits:
        """Those hits for whose block `keep` gives True."""
        found = Hits(folder)
        for block in self:
            found._append(block[keep(block)])
        return found

    # ---- cuts ---------------------------------------------------------------------------------

    def best(self, number: int, folder: str | Path) -> tuple[Hits, float]:
        """The `number` hits of greatest score, and the least score among them.

        Of equal scores the first sound's and then the first caption's count as greater.
        """
        least = self.score_of_rank(number)
        above = sum(int((block["score"] > least).sum()) for block in self)
        room = number - above  # for hits with the least score itself

        def keep(block: Block) -> NDArray[np.bool_]:
            nonlocal room
            equal = np.flatnonzero(block["score"] == least)[: max(room, 0)]
            room -= len(equal)
            chosen: NDArray[np.bool_] = block["score"] > least
            chosen[equal] = True
            return chosen

        return self.kept(keep, folder), least

    def score_of_rank(self, rank: int) -> float:
        """The score that `rank` hits reach (rank from 1), exactly: a histogram of 16 bits twice."""
        high, above = ranked(_counts(_bits(block) >> 16 for block in self), rank)
        inside = ((bits := _bits(b))[bits >> 16 == high] & 0xFFFF for b in self)
        low, _ = ranked(_counts(inside), rank - above)
        return float(score_of((high << 16) | low))

    def capped_by_caption(self, most: int, captions: int, folder: str | Path) -> Hits:
        """At most `most` hits a caption, of m = `captions`: the greatest, ties to the first."""
        counts = np.zeros(captions, np.int64)
        for block in self:
            counts += np.bincount(block["caption"], minlength=captions)
        keep = np.ones(len(self), np.bool_)
        over = np.flatnonzero(counts > most)
        for some in _groups(over, counts[over]):
            wanted = np.zeros(captions, np.bool_)
            wanted[some] = True
            place, hits = self._of_captions(wanted)
            # a stable sort leaves equal scores in the order of the sounds
            order = np.lexsort((-hits["score"], hits["caption"]))
            rank = _rank_in_group(hits["caption"][order])
            keep[place[order[rank >= most]]] = False
        start = 0

        def chosen(block: Block) -> NDArray[np.bool_]:
            nonlocal start
            start += len(block)
            return keep[start - len(block) : start]

        return self.kept(chosen, folder)

    def _of_captions(self, wanted: NDArray[np.bool_]) -> tuple[NDArray[np.int64], Block]:
        """Place and content of all hits of some captions."""
        places, hits, start = [], [], 0
        for block in self:
            found = np.flatnonzero(wanted[block["caption"]])
            places.append(found + start)
            hits.append(block[found])
            start += len(block)
        return np.concatenate(places), np.concatenate(hits)

    def capped_by_sound(self, most: int, folder: str | Path) -> Hits:
        """At most `most` hits a sound: its first, so its greatest."""
        return self.kept(lambda block: _rank_in_group(block["sound"]) < most, folder)


def ranked(counts: NDArray[np.int64], rank: float) -> tuple[int, int]:
    """Bin of a histogram where the `rank`-th greatest value stands, and how many stand above it."""
    reached = np.cumsum(counts[::-1])
    before = min(int(np.searchsorted(reached, rank)), len(counts) - 1)
    place = len(counts) - 1 - before
    return place, int(reached[before] - counts[place])


def _counts(values: Iterator[NDArray[np.integer]]) -> NDArray[np.int64]:
    counts = np.zeros(2**16, np.int64)
    for part in values:
        counts += np.bincount(part, minlength=2**16)
    return counts


def _bits(block: Block) -> NDArray[np.uint32]:
    """Scores as integers in the same order."""
    return ordered_bits(block["score"])


def ordered_bits(score: NDArray[np.float32]) -> NDArray[np.uint32]:
    """float32 as uint32 such that the greater number is the greater integer."""
    bits = np.ascontiguousarray(score, np.float32).view(np.uint32)
    return np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31))


def score_of(bits: int) -> np.float32:
    """The float32 behind `ordered_bits`."""
    whole = bits ^ (1 << 31) if bits >> 31 else ~bits & 0xFFFFFFFF
    return np.uint32(whole).view(np.float32)


def _groups(captions: NDArray[np.int64], counts: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """Captions in groups that have about AT_ONCE hits, or one caption with more."""
    part = np.cumsum(counts) // AT_ONCE
    for number in np.unique(part):
        yield captions[part == number]


def _rank_in_group(values: NDArray[np.integer]) -> NDArray[np.int64]:
    """How many equal values stand before each, where equal values stand together."""
    first = np.ones(len(values), np.bool_)
    first[1:] = values[1:] != values[:-1]
    starts = np.flatnonzero(first)
    return np.arange(len(values)) - starts[np.cumsum(first) - 1]
