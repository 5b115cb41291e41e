"""The writer gpt-j: a causal language model that goes on with a list of given captions (FC).

Row r shows the model captions drawn by (seed, r) and takes the line that it writes next, sampled
with numbers drawn by (seed, r); `writing/filters.py` says which lines are kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pivot.data.captions import fold, read_captions
from pivot.embeddings.sources import hash_texts
from pivot.errors import SettingsError
from pivot.runs import resolve_device
from pivot.settings import WriteCaptions
from pivot.settings.writing import WRITER_MODELS
from pivot.writing.book import Book, Line, Row
from pivot.writing.filters import RULES, Sieve
from pivot.writing.find_language import load_language
from pivot.writing.language import Language

WRITE = 12  # purpose of a row's generator


class Primed:
    """What a row's prompt is made of, and who continues it."""

    kind, unit, rules = "written", "captions", RULES

    def __init__(self, settings: WriteCaptions, primes: Sequence[str], language: Language) -> None:
        self.settings, self.primes, self.language = settings, primes, language
        self.total = settings.count
        self.facts = language.facts
        self.sieve = Sieve(primes, settings.min_words, settings.max_words)
        self.data: dict[str, Any] = {"primes": settings.primes, "sha256": hash_texts(primes)}
        self.made_of: dict[str, Any] = {
            "model": language.facts["commit"] or language.facts["sha256"],
            "prime file": self.data["sha256"],
        }

    @classmethod
    def open(cls, settings: WriteCaptions) -> Primed:
        """Read the primes and load the model; refuses a prompt that cannot fit."""
        skipped: list[str] = []
        captions = read_captions(settings.primes, skipped)
        primes = fold(captions)
        if settings.num_primes > len(primes):
            raise SettingsError(
                f"--num-primes {settings.num_primes} is more than the {len(primes)} different "
                f"captions of {settings.primes}; lower it"
            )
        model = settings.model or WRITER_MODELS["gpt-j"]
        device = resolve_device(settings.device)
        language = load_language(model, settings.revision, device, settings.precision)
        writer = cls(settings, [prime.text for prime in primes], language)
        writer.prompts(0)
        writer.data = {
            "primes": settings.primes,
            "captions": len(captions),
            "different": len(primes),
            "empty": len(skipped),
            "sha256": writer.data["sha256"],
        }
        return writer

    def done(self, book: Book) -> int:
        """How many of `total` captions are there."""
        return book.count

    def example(self) -> str:
        """The prompt of the first row."""
        return self.draw(0)[0]

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
                f"{settings.max_tokens}, but the context of {self.facts['model']} is {context} "
                "tokens; lower --num-primes or --max-tokens"
            )
        return found

    def rows(self, start: int) -> list[Row]:
        """The batch of rows from `start` on: each with its line, or None where it has no room."""
        settings = self.settings
        rows, ids, numbers = zip(*self.prompts(start), strict=True)
        lines = self.language.write(ids, np.stack(numbers), settings.temperature, settings.top_p)
        found: dict[int, Line] = dict(zip(rows, lines, strict=True))
        batch = range(start, start + settings.batch_size)
        return [Row(row, self._own(found.get(row))) for row in batch]

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
