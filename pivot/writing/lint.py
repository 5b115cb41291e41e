"""`pivot lint-captions`: what in a caption file a model should not learn from, by rule.

Written captions are full of it: of Auto-ACD's, a user counted 6 % with raw probabilities or
numbers in brackets and 4.6 % that speak of labels. The file is gone through once to count, and
once more where --out asks for what no rule drops.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from pivot.data import pair_lists, pair_tables
from pivot.data.about import write_about
from pivot.data.captions import Caption, read_captions
from pivot.data.pairs import Pair, check_out, read_meta, write_pairs
from pivot.errors import DataError, SettingsError
from pivot.runs import versions
from pivot.settings import LintCaptions
from pivot.writing.filters import RULES, normalised, not_text
from pivot.writing.token_count import TokenCount
from video_prep.files import whole_file

LINT = {
    "empty": "no text at all",
    **{rule: RULES[rule] for rule in ("control", "link", "few_letters")},
    "probability": "a number between 0 and 1, or in brackets, 'probability', 'confidence of'",
    "label": "speaks of a label or a hashtag",
    "too_long": "more tokens than the text encoder reads",
    "duplicate": "the same text again for the same clip, or in a list without clips",
    "near_duplicate": "the same but for case, punctuation and articles",
}
PROBABILITY = re.compile(
    r"(?<![\w.,])(?:0?\.\d+|0,\d+|1\.0+)(?!\w|[.,:]\d)"  # 0.73 .73 1.00, not 10.30 or v0.7
    r"|[(\[]\s*\d+(?:[.,]\d+)?\s*%?\s*[)\]]"  # (3) [12 %]
    r"|\b(?:probabilit(?:y|ies)\b|confidence (?:score|level|value|of)\b)",
    re.I,
)
LABEL = re.compile(r"\b(?:labels?|labell?ed as|hashtags?)\b", re.I)
TOGETHER = 512  # texts whose tokens are counted together


@dataclass
class Linted:
    """Counts and examples of each rule, and which rows it drops."""

    settings: LintCaptions
    counts: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)
    dropped: bytearray = field(default_factory=bytearray)  # a byte a row: 1 where a rule drops it

    def add(self, text: str, rule: str | None) -> None:
        """Count a row that `rule` applies to, or none."""
        self.dropped.append(rule is not None)
        if rule is not None:
            self.counts[rule] += 1
            shown = self.examples.setdefault(rule, [])
            if len(shown) < self.settings.examples:
                shown.append(text)


def run(settings: LintCaptions) -> int:
    """Count by rule, show examples, and write what is left to --out."""
    if unknown := sorted(set(settings.skip) - set(LINT)):
        raise SettingsError(f"--skip {unknown[0]} is no rule; the rules: {', '.join(LINT)}")
    path = Path(settings.captions)
    pairs = _is_pairs(path)
    _check_out(settings, pairs)
    count = TokenCount.open(settings)
    empty: list[str] = []
    rows: list[Caption] = [] if pairs else read_captions(path, empty)
    found = lint(_of_pairs(path) if pairs else ((c.clip, c.text) for c in rows), count, settings)
    found.counts["empty"] += len(empty)  # the caption reader has left them out
    found.examples.setdefault("empty", []).extend(empty[: settings.examples])
    _tell(found, len(empty), count)
    if settings.out:
        facts = _facts(found, count, len(empty))
        if pairs:
            kept = (p for p, gone in zip(_pairs(path), found.dropped, strict=True) if not gone)
            write_pairs(settings.out, kept, read_meta(path) | {"lint": facts})
        else:
            left = [c for c, gone in zip(rows, found.dropped, strict=True) if not gone]
            _write(Path(settings.out), left, facts)
        print(f"{settings.out}: the other {found.dropped.count(0):,}")
    return 0


def lint(
    rows: Iterable[tuple[str | None, str]], count: TokenCount, settings: LintCaptions
) -> Linted:
    """The first of the rules LINT that applies to each (clip, text), text in single spaces."""
    found = Linted(settings)
    exact: set[int] = set()
    near: set[int] = set()
    source = iter(rows)
    while batch := list(islice(source, TOGETHER)):
        longer = count.longer([text for _, text in batch])
        for (clip, text), long in zip(batch, longer, strict=True):
            same, alike = hash((clip, text)), hash((clip, normalised(text)))
            rules = [*faults(text)]
            rules += ["too_long"] * long
            rules += ["duplicate"] * (same in exact) + ["near_duplicate"] * (alike in near)
            rule = next((rule for rule in rules if rule not in settings.skip), None)
            if rule is None:
                exact.add(same)
                near.add(alike)
            found.add(text, rule)
    return found


def faults(text: str) -> Iterator[str]:
    """The rules from `empty` to `label` that a text by itself breaks, the plainest first."""
    if not text:
        yield "empty"
        return
    if PROBABILITY.search(text):  # before few_letters, which a lone number breaks as well
        yield "probability"
    if rule := not_text(text):
        yield rule
    if LABEL.search(text):
        yield "label"


# ---- reading and writing ----------------------------------------------------------------------


def _is_pairs(path: Path) -> bool:
    """Whether a file holds pairs rather than captions."""
    suffix = path.suffix.lower()
    if suffix == ".parquet" or path.is_dir() or not path.is_file():
        return suffix == ".parquet"
    if pair_lists.is_lists(path):
        return True
    tables = (".csv", ".tsv", *pair_tables.JSON_LINES)
    return suffix in tables and pair_tables.is_table(path)


def _pairs(path: Path) -> Iterator[Pair]:
    """Pairs as they stand; unlike `stream_pairs` with those whose caption is empty."""
    if path.suffix.lower() == ".parquet":
        return pair_tables.read_parquet(path)
    if pair_lists.is_lists(path):
        return pair_lists.read_lists(path, None, "")
    return pair_tables.read_table(path)


def _of_pairs(path: Path) -> Iterator[tuple[str | None, str]]:
    for number, pair in enumerate(_pairs(path)):
        if not pair.audio_id:
            raise DataError(f"{path} pair {number} lacks its sound")
        yield pair.audio_id, " ".join((pair.caption or "").split())


def _check_out(settings: LintCaptions, pairs: bool) -> None:
    if settings.out and pairs:
        check_out(settings.out)
    elif settings.out and Path(settings.out).suffix.lower() not in pair_tables.JSON_LINES:
        raise SettingsError(f"--out {settings.out} of a caption file must end in .jsonl")


def _write(path: Path, captions: list[Caption], facts: dict[str, Any]) -> None:
    """Captions with their ids and clips as JSON lines, and FILE.about.json beside."""
    if not captions:
        raise DataError(f"no caption to write to {path}; every one broke a rule")
    with whole_file(path) as file:
        for caption in captions:
            clip = {} if caption.clip is None else {"clip": caption.clip}
            told = {"caption_id": caption.id, **clip, "caption": caption.text}
            file.write((json.dumps(told, ensure_ascii=False) + "\n").encode())
    write_about(path, {"captions": len(captions), "lint": facts})


def _facts(found: Linted, count: TokenCount, empty: int) -> dict[str, Any]:
    return {
        "settings": found.settings.model_dump(mode="json", exclude={"out"}),
        "read": len(found.dropped) + empty,
        "counts": {rule: found.counts[rule] for rule in LINT},
        "tokenizer": count.name,
        "max_tokens": count.limit,
        "versions": versions(),
    }


def _tell(found: Linted, empty: int, count: TokenCount) -> None:
    total = len(found.dropped) + empty
    broken = found.counts.total()
    print(f"{found.settings.captions}: {total:,} captions, {broken:,} break a rule")
    for rule, words in LINT.items():
        if not found.counts[rule]:
            continue
        more = f", {count.limit} of {count.name}" if rule == "too_long" else ""
        share = 100 * found.counts[rule] / total
        print(f"  {found.counts[rule]:>7,} {share:6.2f} %  {rule} ({words}{more})")
        for example in found.examples[rule]:
            print(f"    {example[:100]}")
