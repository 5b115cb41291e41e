"""Which sounds and captions are near: DU's every pair from a threshold on, DS's label test.

A threshold is given as a cosine, as the quantile of all cosines, or by the number of pairs wanted.
The last two are exact: a sample of the sounds gives a cosine that is surely low enough, all pairs
from there on are held in a file, and the best of them are taken. Letters: n sounds, m captions, d.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pivot.embeddings.match import match, match_blocks
from pivot.embeddings.store import UnitRows
from pivot.embeddings.vectors import Vectors
from pivot.errors import DataError, SettingsError
from pivot.mining.hits import AT_ONCE, Hits, ordered_bits, ranked, score_of

SAMPLE = 1024  # sounds whose cosines with every caption are looked at
KEYS = 4096  # captions scored together
BITS = 20  # of a cosine that the sample's histogram tells apart
SURE = 2.0  # a sample that says so many times --most pairs is believed
Sides = NDArray[Any] | Tensor | UnitRows
Flat = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]


@dataclass(frozen=True)
class Limits:
    """Which pairs are kept: from a threshold, given in one of three ways, less what caps cut.

    `top_k`: only a sound's nearest are looked at. `most`: more pairs than this are an error.
    """

    threshold: float | None = None
    quantile: float | None = None
    wanted: int | None = None
    top_k: int | None = None
    max_per_caption: int | None = None
    max_per_audio: int | None = None
    most: int = 20_000_000

    def check(self) -> None:
        """Raise SettingsError unless exactly one way, or none with a cap a sound, is given."""
        ways = [self.threshold, self.quantile, self.wanted]
        given = sum(way is not None for way in ways)
        if given > 1:
            raise SettingsError("--threshold, --quantile and --wanted exclude each other; give one")
        if not given and self.top_k is None and self.max_per_audio is None:
            raise SettingsError(
                "which pairs count? give --threshold, --quantile or --wanted, or a number a sound "
                "with --top-k"
            )

    def number(self, sounds: int, captions: int) -> int | None:
        """Pairs that --wanted or --quantile ask for among n sounds and m captions; else None.

        The quantile q is numpy's: the pairs with a cosine of at least np.quantile(all, q).
        """
        total = sounds * min(self.top_k or captions, captions)
        if self.wanted is not None and self.wanted > total:
            raise SettingsError(f"--wanted {self.wanted:,} of only {total:,} pairs")
        number = self.wanted
        if self.quantile is not None:
            number = total - math.ceil((total - 1) * self.quantile)
        if number is not None and number > self.most:
            raise too_many(f"{number:,} of {total:,} pairs", self)
        return number


@dataclass(frozen=True)
class Near:
    """Pairs that were found: `hits`, the threshold found, and how many there were before caps."""

    hits: Hits
    threshold: float | None
    before_caps: int


def too_many(pairs: str, limits: Limits, how: str = "") -> SettingsError:
    """The error of more pairs than --most."""
    return SettingsError(
        f"{pairs} would be kept, more than --most {limits.most:,}; nothing is written: ask for "
        f"fewer{how}, or raise --most"
    )


def near_pairs(
    sounds: Sides,
    captions: Sides,
    limits: Limits,
    folder: str | Path,
    device: str = "cpu",
    seen: Callable[[int], Any] = lambda count: None,
) -> Near:
    """The pairs (sound, caption) of sounds (n, d) and captions (m, d) within `limits`.

    Hits lie in a nameless file in `folder`; `seen` is told of sounds that are done. Memory does not
    grow with the number of pairs (but for a byte a pair with --max-per-caption). Raises
    SettingsError where more than `limits.most` pairs are kept, DataError where none is.
    """
    limits.check()
    search = _Search(sounds, captions, limits, Path(folder), device, seen)
    number = limits.number(search.n, search.m)
    if number is None:
        hits, threshold = search.above(limits.threshold), limits.threshold
    else:
        hits, threshold = search.best(number)
    before = len(hits)
    if limits.max_per_caption is not None and before:
        hits = hits.capped_by_caption(limits.max_per_caption, search.m, folder)
    if limits.max_per_audio is not None and before:
        hits = hits.capped_by_sound(limits.max_per_audio, folder)
    if not before:
        raise search.nothing()
    return Near(hits, threshold, before)


def near_labels(
    captions: Sides, labels: Sides, threshold: float, device: str = "cpu"
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """DS: captions (m, d) with a cosine of at least `threshold` with one of labels (l, d).

    Returns their numbers (kept,), rising, and every caption's greatest cosine (m,).
    """
    score = match(captions, labels, k=1, device=device).score[:, 0]
    return np.flatnonzero(score >= np.float32(threshold)), score


class _Search:
    """Passes the captions past the sounds and holds what is near."""

    def __init__(
        self,
        sounds: Sides,
        captions: Sides,
        limits: Limits,
        folder: Path,
        device: str,
        seen: Callable[[int], Any],
    ) -> None:
        self.sounds, self.captions, self.limits = sounds, captions, limits
        self.folder, self.device, self.seen = folder, device, seen
        self.n, self.m = int(sounds.shape[0]), int(captions.shape[0])

    def above(self, threshold: float | None) -> Hits:
        """All pairs from a threshold on; raises SettingsError, with their number, for too many."""
        limits = self.limits
        caps = [limits.top_k, None if limits.max_per_caption else limits.max_per_audio]
        k = min((cap for cap in caps if cap is not None), default=None)
        if k is not None and threshold is None and (total := self.n * min(k, self.m)) > limits.most:
            raise too_many(f"{total:,} pairs", limits)
        if k is None and threshold is not None and self.n > SAMPLE:
            self._refuse_early(threshold)
        hits, count = Hits(self.folder), 0
        for sound, caption, score in self._blocks(k, threshold):
            count += len(sound)
            if count <= limits.most:
                hits.add(sound, caption, score)
        if count > limits.most:
            raise too_many(f"{count:,} pairs", limits, f" with a --threshold above {threshold}")
        return hits

    def best(self, number: int) -> tuple[Hits, float]:
        """The `number` greatest of all pairs, and the least of their cosines."""
        k = self.limits.top_k
        few = self.n * self.m <= AT_ONCE
        floor = None if k is not None or few else self._sample().floor(number)
        while True:
            hits = self._floored(k, floor, number)
            if len(hits) >= number:
                return hits.best(number, self.folder)
            assert floor is not None
            floor -= 0.1  # the sample's sounds were nearer to captions than sounds are

    def _floored(self, k: int | None, floor: float | None, number: int) -> Hits:
        """Hits from a floor on, which rises so that few more than `number` are held."""
        hits = Hits(self.folder)
        least = -math.inf
        lowest = floor if k is not None or floor is not None else -2.0
        for sound, caption, score in self._blocks(k, lowest):
            keep = score >= least
            hits.add(sound[keep], caption[keep], score[keep])
            if len(hits) > 2 * number + AT_ONCE:
                hits, least = hits.best(number, self.folder)
        return hits

    def _blocks(self, k: int | None, threshold: float | None) -> Iterator[Flat]:
        """(sound, caption, score) of the pairs, some sounds at a time."""
        start = 0
        for found in match_blocks(self.sounds, self.captions, k, threshold, self.device):
            count = len(found.index) if found.offsets is None else len(found.offsets) - 1
            yield found.rows() + start, found.index.ravel(), found.score.ravel()
            start += count
            self.seen(count)

    def _refuse_early(self, threshold: float) -> None:
        """An hour's search for pairs that --most refuses anyway is not begun."""
        limits, sample = self.limits, self._sample()
        number = sample.above(threshold)
        if number > SURE * limits.most:
            better = f" (--threshold {sample.floor(limits.most, 0.8):.3f}, say)"
            by = f" (by a sample of {SAMPLE:,} sounds)"
            raise too_many(f"about {number:,} pairs{by}", limits, better)

    def _sample(self) -> _Sample:
        return _Sample(self.sounds, self.captions, self.device)

    def nothing(self) -> DataError:
        """The error of no pair at all."""
        nearest = _Sample(self.sounds, self.captions, self.device).nearest
        return DataError(
            f"--threshold {self.limits.threshold} keeps none of {self.n * self.m:,} pairs; the "
            f"nearest {'looked at ' if self.n > SAMPLE else ''}has a cosine of {nearest:.4f}"
        )


class _Sample:
    """Histogram of the cosines of some sounds with every caption."""

    def __init__(self, sounds: Sides, captions: Sides, device: str) -> None:
        device = "cpu" if device.startswith("mps") else device
        n = int(sounds.shape[0])
        rows = np.unique(np.linspace(0, n - 1, min(n, SAMPLE)).astype(np.int64))
        chosen = sounds[torch.from_numpy(rows)] if isinstance(sounds, Tensor) else sounds[rows]
        q = Vectors(chosen, "sounds", device).block(slice(0, len(rows)))
        keys = Vectors(captions, "captions", device)
        self.counts, self.nearest = np.zeros(2**BITS, np.int64), -math.inf
        for low in range(0, keys.count, KEYS):
            score = (q @ keys.block(slice(low, low + KEYS)).T).cpu().numpy().ravel()
            self.counts += np.bincount(ordered_bits(score) >> (32 - BITS), minlength=2**BITS)
            self.nearest = max(self.nearest, float(score.max()))
        self.times = n / len(rows)  # pairs that one of the sample stands for

    def above(self, threshold: float) -> int:
        """Pairs from a threshold on, of all sounds, as the sample has them."""
        place = int(ordered_bits(np.array([threshold], np.float32))[0]) >> (32 - BITS)
        return round(int(self.counts[place:].sum()) * self.times)

    def floor(self, number: int, share: float = 1.25) -> float:
        """A cosine that surely `number` pairs reach (or, with `share` below 1, surely fewer)."""
        expected = share * number / self.times
        rank = expected + (4 * math.sqrt(expected) + 8 if share > 1 else 0)
        if rank >= self.counts.sum():
            return -2.0  # below every cosine
        place, _ = ranked(self.counts, rank)
        return float(score_of(place << (32 - BITS))) - 1e-4
