"""Debias: words of captions replaced by the map in a YAML file, and what was replaced.

LAION-CLAP says that woman and man became person, her and his their, "by some simple rules", and
published no list: `debias.yaml` beside this file is our own.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from pivot.data.tables import read_text
from pivot.errors import DataError

DEFAULT = Path(__file__).with_name("debias.yaml")
EXAMPLES = 5  # replaced captions in a report


class WordMap:
    """Words and what stands for them, and phrases that are left as they are.

    words: {word or words: replacement}, any case; a word is matched whole, not within hyphens
    ("man" is not in "fireman" or "man-made", it is in "man's"), the longest first, each place of a
    text once. exempt: phrases in which nothing is replaced; a comma in them may be missing. Raises
    DataError, naming `path`, for an entry that is no text.
    """

    def __init__(
        self, words: Mapping[str, str], exempt: Iterable[str] = (), path: str = "word map"
    ) -> None:
        self.path = path
        self.words = {_text(k, path).lower(): _text(v, path) for k, v in words.items()}
        self.exempt = [_text(phrase, path) for phrase in exempt]
        if not self.words:
            raise DataError(f"{path} has no words; give lines `woman: person` under `words:`")
        kept = "|".join(_pattern(phrase) for phrase in _longest_first(self.exempt)) or "(?!)"
        given = "|".join(_pattern(word) for word in _longest_first(self.words))
        self._found = re.compile(rf"(?<![\w-])(?:(?:{kept})|({given}))(?![\w-])", re.I)

    @classmethod
    def open(cls, path: str) -> WordMap:
        """Read a YAML file with `words:` and perhaps `exempt:`; `default` is Pivot's own list."""
        file = DEFAULT if path == "default" else Path(path)
        try:
            values = yaml.safe_load(read_text(file))
        except yaml.YAMLError as error:
            raise DataError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
        if not isinstance(values, dict) or not isinstance(values.get("words"), dict):
            raise DataError(f"{path} has no words; give lines `woman: person` under `words:`")
        exempt = values.get("exempt") or []
        if more := sorted(map(str, values.keys() - {"words", "exempt"})):
            raise DataError(f"{path}: unknown key {more[0]}; valid keys: words, exempt")
        if not isinstance(exempt, list):
            raise DataError(f"{path}: exempt is a list of phrases, not {exempt!r}")
        return cls(values["words"], exempt, path)

    @property
    def sha256(self) -> str:
        """Hash of words and phrases, whatever the file's comments say."""
        whole = json.dumps([self.words, self.exempt], ensure_ascii=False)
        return hashlib.sha256(whole.encode()).hexdigest()

    def apply(self, text: str, counts: Counter[str] | None = None) -> str:
        """`text` with its words replaced; `counts` gets each replacement ("woman -> person")."""

        def replaced(match: re.Match[str]) -> str:
            found: str | None = match[1]
            if found is None:  # exempt
                return match[0]
            word = _plain(found).lower()
            if counts is not None:
                counts[f"{word} -> {self.words[word]}"] += 1
            return _in_case_of(found, self.words[word])

        return self._found.sub(replaced, text)

    def report(self, lines: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
        """What became of captions ({"raw", "caption"}): counts a replacement, examples, the map."""
        counts: Counter[str] = Counter()
        changed = 0
        examples: list[list[str]] = []
        for line in lines:
            if self.apply(line["raw"], counts) != line["raw"]:
                changed += 1
                if len(examples) < EXAMPLES:
                    examples.append([line["raw"], line["caption"]])
        return {
            "file": self.path,
            "sha256": self.sha256,
            "words": self.words,
            "exempt": self.exempt,
            "changed": changed,
            "replaced": dict(counts.most_common()),
            "examples": examples,
        }


def _text(value: Any, path: str) -> str:
    """An entry of a word map; YAML reads some words (no, yes, on) as something else."""
    if not isinstance(value, str) or not value.strip():
        raise DataError(f"{path}: {value!r} is not a word; put it in quotes")
    return _plain(value)


def _plain(text: str) -> str:
    """Straight apostrophes and single spaces."""
    return " ".join(text.replace("’", "'").split())


def _longest_first(phrases: Iterable[str]) -> list[str]:
    return sorted(phrases, key=len, reverse=True)


def _pattern(phrase: str) -> str:
    """A regular expression for a phrase, whatever its spaces and apostrophes."""
    plain = re.escape(phrase).replace(r"\ ", r"\s+").replace("'", "['’]")
    return plain.replace(",", ",?")


def _in_case_of(found: str, replacement: str) -> str:
    """`replacement` in the case of what was found: MAN, Man or man."""
    if len(found) > 1 and found.isupper():
        return replacement.upper()
    return replacement[:1].upper() + replacement[1:] if found[0].isupper() else replacement
