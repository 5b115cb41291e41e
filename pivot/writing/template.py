"""The writer template: "The sound of A", "The sounds of A, B and C", no model (LAION)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pivot.settings import WriteCaptions
from pivot.writing.book import Book, Line, Row
from pivot.writing.tagged import Tagged, read_keywords

BATCH = 4096  # rows between two notes of progress


def sentence(labels: Sequence[str]) -> str:
    """One label: "The sound of A"; more: "The sounds of A and B", "The sounds of A, B and C"."""
    if len(labels) == 1:
        return f"The sound of {labels[0]}"
    return f"The sounds of {', '.join(labels[:-1])} and {labels[-1]}"


class Template:
    """Label lists, each put into a sentence."""

    kind, unit, sieve = "template", "label lists", None

    def __init__(self, tagged: Tagged) -> None:
        self.tagged, self.total, self.data = tagged, len(tagged.lists), tagged.data
        self.rules: dict[str, str] = {}  # every sentence is kept
        self.facts: dict[str, Any] = {"one": sentence(["A"]), "more": sentence(["A", "B", "C"])}
        self.made_of: dict[str, Any] = {"keyword file": tagged.sha256}

    @classmethod
    def open(cls, settings: WriteCaptions) -> Template:
        """Read the labels."""
        return cls(read_keywords(settings.primes, settings.keywords))

    def done(self, book: Book) -> int:
        """How many of `total` lists have had their turn."""
        return book.rows

    def example(self) -> str:
        """The labels of the first caption."""
        return ", ".join(self.tagged.lists[0][0])

    def rows(self, start: int) -> list[Row]:
        """The lists from `start` on, each in its sentence."""
        batch = self.tagged.lists[start : start + BATCH]
        return [
            Row(number, Line(sentence(labels), True), clips, labels)
            for number, (labels, clips) in enumerate(batch, start)
        ]
