"""`pivot write-captions`: captions by a language model or a template; a killed run goes on.

The writers: gpt-j (`primed.py`) goes on with captions that it is shown; keywords (`keywords.py`)
makes a sentence of what a clip's labels name; template (`template.py`) puts them into one.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any, Protocol

from tqdm import tqdm

from pivot.embeddings.sources import hash_texts
from pivot.errors import RunError, SettingsError
from pivot.runs import Run, finished
from pivot.settings import WriteCaptions
from pivot.writing.book import Book, Row
from pivot.writing.debias import WordMap
from pivot.writing.filters import Sieve

PATIENCE = 1000  # rows without a new caption after which a run gives up
SHOWN = 5  # captions printed at the end
WRITERS = {
    "gpt-j": "primed:Primed",
    "keywords": "keywords:Keywords",
    "template": "template:Template",
}
# Settings that only these writers read; another value for one that does not would do nothing.
_READ_BY = {
    **dict.fromkeys(
        ("count", "num_primes", "header", "prime_format", "temperature", "top_p", "max_tokens",
         "seed"), ("gpt-j",)),
    **dict.fromkeys(("separator", "beam"), ("keywords",)),
    **dict.fromkeys(("model", "revision", "precision", "min_words", "max_words"),
                    ("gpt-j", "keywords")),
    "keywords": ("keywords", "template"),
}  # fmt: skip


class Writer(Protocol):
    """Who writes the rows of a run, each a function of its number."""

    kind: str  # last part of the ids of captions that have a clip
    unit: str  # what `total` counts
    total: int  # after which the run is done
    facts: dict[str, Any]  # of the model
    made_of: dict[str, Any]  # hashes of model and source
    data: dict[str, Any]  # of the source
    sieve: Sieve | None  # which lines are kept; None: all
    rules: dict[str, str]  # of the sieve, in words

    def rows(self, start: int) -> list[Row]:
        """A batch of rows from `start` on."""
        ...

    def done(self, book: Book) -> int:
        """How many of `total` the book holds."""
        ...

    def example(self) -> str:
        """What the first row was made from."""
        ...


def run(settings: WriteCaptions) -> int:
    """Write OUT/captions.jsonl (caption_id, caption, row, ...) and OUT/results.json."""
    if finished(settings.out, "write-captions", settings, settings.resume):
        return 0
    _refuse_unread(settings)
    words = WordMap.open(settings.debias) if settings.debias else None
    module, _, name = WRITERS[settings.writer].partition(":")
    writer: Writer = getattr(import_module(f"pivot.writing.{module}"), name).open(settings)
    record = Run.create(settings.out, "write-captions", settings, settings.resume)
    made_of = writer.made_of | ({"word map": words.sha256} if words else {})
    book = Book.open(record.path, made_of, writer.kind)
    _write(writer, book, words)
    record.finish(_results(settings, writer, book, words), writer.data)
    _tell(writer, book, words)
    return 0


def _refuse_unread(settings: WriteCaptions) -> None:
    """SettingsError for a setting that is not its default and that this writer never reads."""
    for name, writers in _READ_BY.items():
        default = WriteCaptions.model_fields[name].default
        if settings.writer not in writers and getattr(settings, name) != default:
            raise SettingsError(
                f"--{name.replace('_', '-')} is for --writer {' and '.join(writers)}, not for "
                f"{settings.writer}; leave it out"
            )


def _write(writer: Writer, book: Book, words: WordMap | None) -> None:
    """Write batches until the writer is done; raises RunError when nothing new comes."""
    if writer.sieve and book.count:
        for line in book.read():
            writer.sieve.add(line["caption"])
    total, done = writer.total, writer.done
    with tqdm(
        total=total, initial=done(book), unit=f" {writer.unit}", desc="write", disable=None
    ) as bar:
        while done(book) < total:
            before = done(book)
            for row in writer.rows(book.rows):
                _take(book, row, writer.sieve, words)
                if done(book) == total or row.number - book.last >= PATIENCE:
                    break
            book.save()
            bar.update(done(book) - before)
            if book.rows - 1 - book.last >= PATIENCE and done(book) < total:
                raise RunError(
                    f"{book.path} has {done(book)} of {total} {writer.unit}, and the last "
                    f"{PATIENCE} rows gave no new caption (dropped so far: {book.counted()}); "
                    "use it as it is, or write into another folder with other settings"
                )
    if not book.count:
        raise RunError(
            f"{total} {writer.unit} gave no caption (dropped: {book.counted()}); "
            "write into another folder with another --model"
        )


def _take(book: Book, row: Row, sieve: Sieve | None, words: WordMap | None) -> None:
    """Keep a row's line, its words replaced, or drop it by the first rule that applies."""
    if row.line is None:
        book.drop(row.number, "no_room")
        return
    raw = row.line.text
    text = words.apply(raw) if words else raw
    rule = sieve.drops(text, row.line.ended) if sieve else None
    if rule:
        book.drop(row.number, rule, text)
    else:
        book.keep(row, text, raw if words else None)


def _results(
    settings: WriteCaptions, writer: Writer, book: Book, words: WordMap | None
) -> dict[str, Any]:
    found = {
        "captions": book.count,
        "rows": book.rows,
        "dropped": {rule: book.dropped[rule] for rule in writer.rules},
        "dropped_examples": book.examples,
        "rules": writer.rules,
        "writer": {"name": settings.writer, **writer.facts},
        "prompt_example": writer.example(),
        "sha256": hash_texts([line["caption"] for line in book.read()]),
    }
    return found | ({"debias": words.report(book.read())} if words else {})


def _tell(writer: Writer, book: Book, words: WordMap | None) -> None:
    """Print what the file holds, what was dropped and which words were replaced."""
    print(f"{book.path}: {book.count:,} captions from {book.rows:,} rows")
    for rule, count in book.dropped.most_common():
        print(f"  {count:>7,} dropped: {rule} ({writer.rules[rule]})")
    if words:
        told = words.report(book.read())
        print(f"  words replaced in {told['changed']:,} captions (word map {words.path})")
        for change, count in told["replaced"].items():
            print(f"  {count:>7,} {change}")
    for _, line in zip(range(SHOWN), book.read(), strict=False):
        print(f"  {line['caption']}")
