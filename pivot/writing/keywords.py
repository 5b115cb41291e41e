"""The writer keywords: a T5 makes a sentence of what each clip's labels name (LAION-CLAP).

A row is a list of keywords; clips with equal lists share its caption, so that a data set of two
million clips asks the model for each list once. Beam search draws nothing: a row is the same in
every run.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from pivot.runs import resolve_device
from pivot.settings import WriteCaptions
from pivot.settings.writing import WRITER_MODELS
from pivot.writing.book import Book, Row
from pivot.writing.filters import RULES, Sieve
from pivot.writing.keyword_model import KeywordModel, load_keyword_model
from pivot.writing.tagged import Tagged, read_keywords

MARKS = re.compile(
    r"</?s>|<pad>|[\[\]\"|,]"
)  # of texts' ends, lists and quotes; "," parts keywords
APPLICABLE = ("no_room", "empty", "cut_off", "too_short", "too_long", "control", "link",
              "few_letters", "loop", "open_end")  # fmt: skip


def clean_keyword(word: str) -> str:
    """A keyword as the model is shown it: no dots, marks of a text's end, quotes or brackets.

    keytotext splits its input at dots and writes each part apart, so "p.a." became "p" and "a.",
    each with a sentence of its own. A dot between two words becomes a space, any other goes.
    """
    marked = MARKS.sub(" ", word)
    parted = re.sub(r"(?<=\w\w)\.(?=\w\w)", " ", marked)
    return " ".join(parted.replace(".", "").split())


class Keywords:
    """Keyword lists, and the model that makes a sentence of each."""

    kind, unit = "keywords", "keyword lists"
    rules = {rule: RULES[rule] for rule in APPLICABLE} | {
        "no_room": "the keywords do not fit into the model's context",
        "cut_off": "no end within --beam.max-length",
    }

    def __init__(self, settings: WriteCaptions, tagged: Tagged, model: KeywordModel) -> None:
        self.settings, self.tagged, self.model = settings, tagged, model
        self.total, self.data = len(tagged.lists), tagged.data
        self.facts = {**model.facts, "decoding": model.decoding(settings.beam).to_diff_dict()}
        self.made_of: dict[str, Any] = {
            "model": model.facts["commit"] or model.facts["sha256"],
            "keyword file": tagged.sha256,
        }
        self.sieve = Sieve((), settings.min_words, settings.max_words, fresh=False)

    @classmethod
    def open(cls, settings: WriteCaptions) -> Keywords:
        """Read the keywords and load the model."""
        tagged = read_keywords(settings.primes, settings.keywords, clean_keyword)
        name = settings.model or WRITER_MODELS["keywords"]
        device = resolve_device(settings.device)
        model = load_keyword_model(name, settings.revision, device, settings.precision)
        return cls(settings, tagged, model)

    def done(self, book: Book) -> int:
        """How many of `total` lists have had their turn."""
        return book.rows

    def example(self) -> str:
        """What the model is shown for the first list."""
        return self.prompt(self.tagged.lists[0][0])

    def prompt(self, keywords: Iterable[str]) -> str:
        """What the model is shown: the keywords alone; its tokenizer adds the text's end."""
        return self.settings.separator.join(keywords)

    def rows(self, start: int) -> list[Row]:
        """The batch of lists from `start` on, with what the model makes of each."""
        batch = self.tagged.lists[start : start + self.settings.batch_size]
        prompts = [self.model.tokens(self.prompt(keywords)) for keywords, _ in batch]
        lines = self.model.write(prompts, self.settings.beam)
        return [
            Row(number, line, clips, keywords)
            for number, ((keywords, clips), line) in enumerate(
                zip(batch, lines, strict=True), start
            )
        ]
