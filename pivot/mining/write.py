"""`pivot write-captions`: new captions by a language model primed with given ones (VIP-ANT's FC).

Row r shows the model captions drawn by (seed, r) and takes the line that it writes next, sampled
with numbers drawn by (seed, r); `mining/filters.py` says which lines are kept. After every batch
OUT/progress.json says how far the file is whole, so a killed run goes on to the same file.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from pivot.data.captions import Caption, fold, read_captions
from pivot.embeddings.sources import hash_texts
from pivot.errors import RunError, SettingsError
from pivot.mining.filters import RULES, Sieve
from pivot.mining.find_language import load_language
from pivot.mining.language import Language, Line
from pivot.runs import Run, finished, resolve_device
from pivot.settings import WriteCaptions
from video_prep.files import write_json

WRITE = 12  # purpose of a row's generator
PATIENCE = 1000  # rows without a new caption after which a run gives up
EXAMPLES = 3  # dropped lines kept for each rule
SHOWN = 5  # captions printed at the end


def run(settings: WriteCaptions) -> int:
    """Write OUT/captions.jsonl (caption_id, caption, row) and OUT/results.json."""
    if finished(settings.out, "write-captions", settings, settings.resume):
        return 0
    skipped: list[str] = []
    captions = read_captions(settings.primes, skipped)
    primes = fold(captions)
    if settings.num_primes > len(primes):
        raise SettingsError(
            f"--num-primes {settings.num_primes} is more than the {len(primes)} different "
            f"captions of {settings.primes}; lower it"
        )
    language = load_language(
        settings.model, settings.revision, resolve_device(settings.device), settings.precision
    )
    writer = Writer(settings, [prime.text for prime in primes], language)
    writer.prompts(0)  # one that cannot fit is refused before the run folder is made
    record = Run.create(settings.out, "write-captions", settings, settings.resume)
    data = {
        "primes": settings.primes,
        "captions": len(captions),
        "different": len(primes),
        "empty": len(skipped),
        "sha256": hash_texts([prime.text for prime in primes]),
    }
    facts = language.facts
    source = {"model": facts["commit"] or facts["sha256"], "prime file": data["sha256"]}
    book = Book.open(record.path, source)
    _write(writer, book, Sieve((c.text for c in primes), settings.min_words, settings.max_words))
    record.finish(_results(settings, writer, book), data)
    _tell(book)
    return 0


def _write(writer: Writer, book: Book, sieve: Sieve) -> None:
    """Write batches until the file holds enough; raises RunError when nothing new comes."""
    for caption in book.kept:
        sieve.add(caption.text)
    count = writer.settings.count
    with tqdm(
        total=count, initial=len(book.kept), unit=" captions", desc="write", disable=None
    ) as bar:
        while len(book.kept) < count:
            before = len(book.kept)
            for row, line in writer.rows(book.rows):
                book.take(row, line, sieve)
                if len(book.kept) == count or row - book.last >= PATIENCE:
                    break
            book.save()
            bar.update(len(book.kept) - before)
            if book.rows - 1 - book.last >= PATIENCE and len(book.kept) < count:
                raise RunError(
                    f"{book.path} holds {len(book.kept)} of {count} captions, and the last "
                    f"{PATIENCE} rows gave no new one (dropped so far: {book.counted()}); "
                    "use it as it is, or write into another folder with other settings"
                )


# ---- rows -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Writer:
    """What a row's prompt is made of, and who continues it."""

    settings: WriteCaptions
    primes: Sequence[str]
    language: Language

    def draw(self, row: int) -> tuple[str, NDArray[np.float64]]:
        """A row's prompt, and its numbers in [0, 1): (max_tokens,). A function of (seed, row)."""
        rng = np.random.default_rng([self.settings.seed, WRITE, row])
        shown = rng.choice(len(self.primes), self.settings.num_primes, replace=False)
        texts = [self.primes[i] for i in shown]
        return prompt(self.settings, texts), rng.random(self.settings.max_tokens)

    def prompts(self, start: int) -> list[tuple[int, list[int], NDArray[np.float64]]]:
        """The batch of rows from `start` on that have room: row, token ids of its prompt, numbers.

        Raises SettingsError where none has.
        """
        settings, context = self.settings, self.language.context
        found, shortest = [], float("inf")
        for row in range(start, start + settings.batch_size):
            text, numbers = self.draw(row)
            ids = self.language.tokens(text)
            shortest = min(shortest, len(ids))
            if context is None or len(ids) + settings.max_tokens <= context:
                found.append((row, ids, numbers))
        if not found:
            raise SettingsError(
                f"{settings.num_primes} primes take {shortest} tokens or more and --max-tokens "
                f"{settings.max_tokens}, but the context of {settings.model} is {context} tokens; "
                "lower --num-primes or --max-tokens"
            )
        return found

    def rows(self, start: int) -> list[tuple[int, Line | None]]:
        """The batch of rows from `start` on: each with its line, or None where it has no room."""
        settings = self.settings
        rows, ids, numbers = zip(*self.prompts(start), strict=True)
        lines = self.language.write(ids, np.stack(numbers), settings.temperature, settings.top_p)
        found: dict[int, Line] = dict(zip(rows, lines, strict=True))
        batch = range(start, start + settings.batch_size)
        return [(row, self._own(found.get(row))) for row in batch]

    def _own(self, line: Line | None) -> Line | None:
        """The line without what stands after {} in the format."""
        after = self.settings.prime_format.split("{}")[1].strip()
        return line and Line(line.text.removesuffix(after).strip(), line.ended)


def prompt(settings: WriteCaptions, texts: Sequence[str]) -> str:
    """What the model is shown: the header, a line for each caption, and the open line's beginning.

    The open line ends without a space: tokenizers of the GPT kind put it into the next word.
    """
    before, after = settings.prime_format.split("{}")
    lines = [settings.header] if settings.header else []
    return "\n".join([*lines, *(f"{before}{text}{after}" for text in texts), before.rstrip()])


# ---- what is kept ---------------------------------------------------------------------------


@dataclass
class Book:
    """OUT/captions.jsonl and the counts of a run, which OUT/progress.json keeps batch by batch."""

    folder: Path
    made_of: dict[str, Any]  # model and primes: another one may not go on with the file
    rows: int = 0  # rows done
    size: int = 0  # bytes of captions.jsonl that belong to them
    dropped: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)
    kept: list[Caption] = field(default_factory=list)
    last: int = -1  # row of the last caption
    lines: list[str] = field(default_factory=list)  # not yet in the file

    @classmethod
    def open(cls, folder: Path, made_of: dict[str, Any]) -> Book:
        """Begin, or go on where the last whole batch ended; what came after it is cut off."""
        book = cls(folder, made_of)
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
            for line in book.path.read_text(encoding="utf-8").splitlines():
                row = json.loads(line)
                book.kept.append(Caption(row["caption_id"], row["caption"]))
                book.last = row["row"]
        return book

    @property
    def path(self) -> Path:
        """The captions file."""
        return self.folder / "captions.jsonl"

    def take(self, row: int, line: Line | None, sieve: Sieve) -> None:
        """Count a row: keep its line, or drop it by the first rule that applies."""
        self.rows = row + 1
        rule = sieve.drops(*line) if line else "no_room"
        if rule:
            self.dropped[rule] += 1
            shown = self.examples.setdefault(rule, [])
            if line and line.text and len(shown) < EXAMPLES:
                shown.append(line.text)
            return
        assert line
        caption = Caption(f"written-{row:07d}", line.text)
        self.kept.append(caption)
        self.last = row
        told = {"caption_id": caption.id, "caption": caption.text, "row": row}
        self.lines.append(json.dumps(told, ensure_ascii=False) + "\n")

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


def _results(settings: WriteCaptions, writer: Writer, book: Book) -> dict[str, Any]:
    return {
        "captions": len(book.kept),
        "rows": book.rows,
        "dropped": {rule: book.dropped[rule] for rule in RULES},
        "dropped_examples": book.examples,
        "rules": RULES,
        "writer": {"name": settings.writer, **writer.language.facts},
        "prompt_example": writer.draw(0)[0],
        "sha256": hash_texts([caption.text for caption in book.kept]),
    }


def _tell(book: Book) -> None:
    """Print what the file holds and what was dropped."""
    print(f"{book.path}: {len(book.kept):,} captions from {book.rows:,} rows")
    for rule, count in book.dropped.most_common():
        print(f"  {count:>7,} dropped: {rule} ({RULES[rule]})")
    for caption in book.kept[:SHOWN]:
        print(f"  {caption.text}")
