"""What a pairs file holds, counted while the pairs pass by on their way into it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from pivot.data.pairs import Pair

BINS = 1000  # of the cosines between 0 and 1
EXAMPLES = 4  # clips shown
NAMED = 3  # ids named where some are missing


class Summary:
    """Counts pairs, clips, captions and scores."""

    def __init__(self) -> None:
        self.pairs, self.captions, self.shown = 0, set[str](), list[Pair]()
        self.clips: dict[str, int] = {}
        self.scores = np.zeros(2 * BINS + 1, np.int64)  # a histogram: pairs may be many

    def watch(self, rows: Iterable[Pair]) -> Iterator[Pair]:
        """Pass the pairs on."""
        for row in rows:
            self.add(row)
            yield row

    def add(self, row: Pair) -> None:
        """Count a pair."""
        if row.audio_id not in self.clips:
            self.clips[row.audio_id] = 0
            if len(self.shown) < EXAMPLES:
                self.shown.append(row)
        self.clips[row.audio_id] += 1
        self.pairs += 1
        self.captions.add(row.caption_id)
        if row.score == row.score:
            place = round((row.score + 1) * BINS)
            self.scores[min(max(place, 0), 2 * BINS)] += 1

    def _quantile(self, share: float) -> float:
        seen = np.cumsum(self.scores)
        return float(np.searchsorted(seen, max(1, share * seen[-1]))) / BINS - 1

    def tell(self, out: str, of_clips: str = "", of_captions: str = "") -> None:
        """Print what the file holds; `of_clips` and `of_captions` say " of 7" where that is known.

        Captions are counted by their ids.
        """
        counts = sorted(self.clips.values())
        print(
            f"{out}: {self.pairs:,} pairs of {len(counts):,}{of_clips} clips with "
            f"{len(self.captions):,}{of_captions} captions; "
            f"{self.pairs / len(counts):.2f} a clip ({counts[0]} to {counts[-1]})"
        )
        if self.scores.any():
            low, middle, high = (self._quantile(share) for share in (0, 0.5, 1))
            print(f"cosine {low:.3f} to {high:.3f}, median {middle:.3f}")

    def show(self) -> None:
        """Print the first pair of the first clips."""
        for pair in self.shown:
            score = f"{pair.score:.3f}" if pair.score == pair.score else pair.rule
            print(f"  {pair.audio_id}  {score}  {pair.caption}")


def some(names: Sequence[str]) -> str:
    """The first of some names, for a message."""
    return ", ".join(names[:NAMED]) + (", ..." if len(names) > NAMED else "")
