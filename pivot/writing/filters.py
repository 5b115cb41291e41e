"""Which written captions are dropped, and by which rule; the first that applies counts.

VIP-ANT says that GPT-J's captions were filtered and not how: these rules are our own. They keep
what could have stood among the primes and is new; they are small enough to be read here whole.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

RULES = {
    "no_room": "the primes and the longest caption do not fit into the model's context",
    "empty": "nothing before the line's end",
    "cut_off": "no line end within --max-tokens",
    "too_short": "fewer words than --min-words",
    "too_long": "more words than --max-words",
    "control": "control characters, or bytes that are no character",
    "link": "a web or mail address, markup or code",
    "few_letters": "fewer letters than 7 in 10 characters, spaces aside",
    "loop": "a word, or two to four in a row, three times on end",
    "open_end": "ends in an article, 'and', 'or', 'of', 'with', a comma or the like",
    "copy": "a caption of the prime file, in normalised text",
    "duplicate": "written before, letter by letter",
    "near_duplicate": "written before, in normalised text",
}
LETTERS = 0.7  # least share of letters among the characters that are not spaces
LINK = re.compile(r"https?:|www\.|\S@\S+\.\S|\w\.(com|org|net)\b|</?\w|[{}\[\]\\|^~=<>_]", re.I)
LOOP = re.compile(r"\b(\w+(?:\W+\w+){0,3}?)(?:\W+\1\b){2}", re.I)
OPEN_END = re.compile(r"(?:\b(?:a|an|the|and|or|of|with)|[,;:(&/-])$", re.I)
ARTICLES = {"a", "an", "the"}


def normalised(text: str) -> str:
    """`text` without what makes a near-duplicate: case, punctuation, articles, further spaces.

    Compatible forms (full width, ligatures) are folded by NFKC; an apostrophe joins its word.
    "A dog's bowl, on the  floor." and "a dogs bowl on floor" are both "dogs bowl on floor".
    """
    folded = unicodedata.normalize("NFKC", text).casefold().replace("'", "").replace("’", "")
    words = re.sub(r"[\W_]+", " ", folded).split()
    return " ".join(word for word in words if word not in ARTICLES)


def not_text(text: str) -> str | None:
    """The first of the rules `control` to `few_letters` that drops `text`, or None for a text."""
    if any(unicodedata.category(c) in {"Cc", "Cs", "Cn", "Co"} or c == "\ufffd" for c in text):
        return "control"
    if LINK.search(text):
        return "link"
    marks = text.replace(" ", "")
    if sum(c.isalpha() for c in marks) < LETTERS * len(marks):
        return "few_letters"
    return None


def not_a_sentence(text: str) -> str | None:
    """The first of the rules `control` to `open_end` that drops `text`, or None for a sentence."""
    if rule := not_text(text):
        return rule
    if LOOP.search(text):
        return "loop"
    return "open_end" if OPEN_END.search(text) else None


class Sieve:
    """Passes each new caption once. Remembers all that it passed, and every prime.

    With `fresh` False a caption may come again: two clips may sound alike.
    """

    def __init__(
        self, primes: Iterable[str], min_words: int, max_words: int, fresh: bool = True
    ) -> None:
        self.primes = {normalised(prime) for prime in primes}
        self.min_words, self.max_words, self.fresh = min_words, max_words, fresh
        self.exact: set[str] = set()
        self.near: set[str] = set()

    def drops(self, text: str, ended: bool) -> str | None:
        """The rule (a key of RULES) that drops a stripped line, or None: it is kept as `add` does.

        `ended` tells whether the model ended the line itself.
        """
        rule = self._form(text, ended) or not_a_sentence(text) or self._known(text)
        if rule is None:
            self.add(text)
        return rule

    def add(self, text: str) -> None:
        """Remember a caption that was kept."""
        if self.fresh:
            self.exact.add(text)
            self.near.add(normalised(text))

    def _form(self, text: str, ended: bool) -> str | None:
        if not text:
            return "empty"
        if not ended:
            return "cut_off"
        words = len(text.split())
        if words < self.min_words:
            return "too_short"
        return "too_long" if words > self.max_words else None

    def _known(self, text: str) -> str | None:
        if not self.fresh:
            return None
        plain = normalised(text)
        if plain in self.primes:
            return "copy"
        if text in self.exact:
            return "duplicate"
        return "near_duplicate" if plain in self.near else None
