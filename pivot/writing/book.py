"""OUT/captions.jsonl and how far it is whole: what every writer of captions appends to.

After every batch OUT/progress.json says how many rows are done and how many bytes belong to them,
so a killed run goes on to the same file; what came after the last whole batch is cut off.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from pivot.errors import RunError
from video_prep.files import write_json

EXAMPLES = 3  # dropped lines kept for each rule


class Line(NamedTuple):
    """What a model wrote up to the line's end, single spaces; whether it came to an end at all."""

    text: str
    ended: bool


class Row(NamedTuple):
    """What was written in one turn: a caption for nobody, or for all clips of the same keywords."""

    number: int
    line: Line | None  # None: it had no room
    clips: Sequence[str] = ()
    keywords: Sequence[str] = ()


@dataclass
class Book:
    """The captions file of a run and its counts, which OUT/progress.json keeps batch by batch."""

    folder: Path
    made_of: dict[str, Any]  # hashes of model, source, ...: another one may not go on with the file
    kind: str = "written"  # last part of the ids of captions that have a clip
    rows: int = 0  # rows done
    size: int = 0  # bytes of captions.jsonl that belong to them
    dropped: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)
    count: int = 0  # captions
    last: int = -1  # row of the last caption
    lines: list[str] = field(default_factory=list)  # not yet in the file

    @classmethod
    def open(cls, folder: Path, made_of: dict[str, Any], kind: str = "written") -> Book:
        """Begin, or go on where the last whole batch ended; what came after it is cut off."""
        book = cls(folder, made_of, kind)
        state = folder / "progress.json"
        if not state.exists():
            book.save()
            return book
        told = json.loads(state.read_text(encoding="utf-8"))
        for key, now in made_of.items():
            if told["made_of"].get(key) != now:
                raise RunError(
                    f"{folder} was begun with another {key} (hash {told['made_of'].get(key)}, now "
                    f"{now}); restore it to resume, or name another folder"
                )
        book.rows, book.size = told["rows"], told["size"]
        book.dropped, book.examples = Counter(told["dropped"]), told["examples"]
        if book.size and (not book.path.exists() or book.path.stat().st_size < book.size):
            raise RunError(f"{book.path} is shorter than {state} says; name another folder")
        if book.size:
            os.truncate(book.path, book.size)
            for line in book.read():
                book.count += 1
                book.last = line["row"]
        return book

    @property
    def path(self) -> Path:
        """The captions file."""
        return self.folder / "captions.jsonl"

    def read(self) -> Iterator[dict[str, Any]]:
        """The lines of the file, in their order."""
        with self.path.open(encoding="utf-8") as file:
            yield from map(json.loads, file)

    def drop(self, row: int, rule: str, text: str = "") -> None:
        """Count a row that gave no caption, with the first few of each rule as examples."""
        self.rows = row + 1
        self.dropped[rule] += 1
        shown = self.examples.setdefault(rule, [])
        if text and len(shown) < EXAMPLES:
            shown.append(text)

    def keep(self, row: Row, text: str, raw: str | None = None) -> None:
        """Add a row's caption, once for each of its clips; `raw` is what it was before debias."""
        self.rows = row.number + 1
        self.last = row.number
        free = {"caption_id": f"written-{row.number:07d}"}
        owned = [{"caption_id": f"{clip}#{self.kind}", "clip": clip} for clip in row.clips]
        for owner in owned or [free]:
            told: dict[str, Any] = {**owner, "caption": text, "row": row.number}
            if row.keywords:
                told["keywords"] = list(row.keywords)
            if raw is not None:
                told["raw"] = raw
            self.lines.append(json.dumps(told, ensure_ascii=False) + "\n")
            self.count += 1

    def save(self) -> None:
        """Append the new captions, then say how far the file is whole."""
        data = "".join(self.lines).encode()
        with self.path.open("ab") as file:
            file.truncate(self.size)  # what a killed run had appended without saying so
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        self.lines.clear()
        self.size += len(data)
        write_json(
            self.folder / "progress.json",
            {
                "rows": self.rows,
                "size": self.size,
                "dropped": self.dropped,
                "examples": self.examples,
                "made_of": self.made_of,
            },
        )

    def counted(self) -> str:
        """The rules that dropped rows, most first: '30 copy, 4 loop'."""
        return ", ".join(f"{n} {rule}" for rule, n in self.dropped.most_common()) or "none"
