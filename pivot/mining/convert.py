"""Pairs of one layout into another, of all clips or of those in a list (`pivot pairs`)."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from pivot.data.captions import ClipFinder
from pivot.data.ids import read_ids
from pivot.data.pairs import Pair, check_out, read_meta, stream_pairs, write_pairs
from pivot.errors import DataError
from pivot.mining.summary import Summary, some
from pivot.settings import ConvertPairs


def run(settings: ConvertPairs) -> int:
    """Write the pairs in the layout of --out, and say what is in the file."""
    check_out(settings.out)
    rows = stream_pairs(settings.pairs, settings.captions)
    summary, listed = Summary(), _Listed(settings) if settings.ids is not None else None
    if listed:
        rows = listed.only(rows)
    rows = summary.watch(rows)
    first = next(rows, None)
    if first is None:
        raise DataError(
            f"no pair of {settings.pairs} belongs to a clip of --ids {settings.ids} (such as "
            f"{listed.ids[0] if listed else ''}); take the list that belongs to these pairs"
        )
    meta = read_meta(settings.pairs, settings.captions)
    if listed:
        meta |= {"only": {"ids": settings.ids, "listed": len(listed.ids)}}
    write_pairs(settings.out, _with(first, rows), meta)
    if listed:
        listed.tell()
    summary.tell(settings.out)
    return 0


def _with(first: Pair, rows: Iterator[Pair]) -> Iterator[Pair]:
    yield first
    yield from rows


class _Listed:
    """The clips that --ids lists."""

    def __init__(self, settings: ConvertPairs) -> None:
        self.settings = settings
        self.ids = list(dict.fromkeys(read_ids(str(settings.ids))))
        self.find = ClipFinder(self.ids)
        self.met: dict[str, int | None] = {}  # clip of the pairs -> its number in the list

    def only(self, rows: Iterator[Pair]) -> Iterator[Pair]:
        """The pairs of these clips."""
        for row in rows:
            if row.audio_id not in self.met:
                self.met[row.audio_id] = self.find(row.audio_id)
            if self.met[row.audio_id] is not None:
                yield row

    def tell(self) -> None:
        """Say which clips have no pair."""
        found = set(self.met.values())
        missing = [name for i, name in enumerate(self.ids) if i not in found]
        if missing:
            print(
                f"left out: {len(missing)} of {len(self.ids)} ids of {self.settings.ids}, which "
                f"have no pair in {self.settings.pairs}: {some(missing)}",
                file=sys.stderr,
            )
