"""What clips are labelled with: lists of keywords, each with the clips that have it."""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pivot.data.benchmarks import unique_labels
from pivot.data.captions import by_clip, read_captions
from pivot.data.ids import read_ids
from pivot.errors import DataError
from pivot.mining.labels import label_captions
from pivot.mining.summary import some
from video_prep.shards import ShardFolder
from video_prep.storage.remote import is_url

PARTS = re.compile(r"[,;|]")  # between the keywords of a caption


@dataclass(frozen=True)
class Tagged:
    """The different keyword lists of a source, each with its clips, in order of appearance."""

    lists: list[tuple[tuple[str, ...], list[str]]]
    data: dict[str, Any]  # counts and hash, for the results

    @property
    def sha256(self) -> str:
        """Hash of the lists and their clips."""
        return str(self.data["sha256"])


def read_keywords(source: str, kind: str = "labels", clean: Callable[[str], str] = str) -> Tagged:
    """Keywords of clips, in lower case, each once a clip, after `clean`.

    kind `labels`: prepared shards, or a table of clips and labels (see `label_captions`).
    `captions`: any caption file, whose texts name things separated by , ; or |; those without a
    clip are lists of their own. Clips without a keyword are counted and said on stderr; raises
    DataError where none has one.
    """
    named, free = _of_labels(source) if kind == "labels" else _of_captions(source)
    lists: dict[tuple[str, ...], list[str]] = {}
    without = []
    for clip, words in [*named.items(), *((None, words) for words in free)]:
        keywords = tuple(unique_labels(clean(word.lower()) for word in words))
        if keywords:
            lists.setdefault(keywords, []).extend([] if clip is None else [clip])
        else:
            without.append(clip or "a line without clip")
    total = len(named) + len(free)
    if not lists:
        raise DataError(f"none of the {total} clips of {source} has a keyword; check its {kind}")
    if without:
        print(
            f"left out: {len(without)} of {total} clips of {source}, which have no keyword: "
            f"{some(without)}",
            file=sys.stderr,
        )
    whole = json.dumps(list(lists.items()), ensure_ascii=False).encode()
    data = {
        "source": source,
        "keywords": kind,
        "clips": total,
        "without_keywords": len(without),
        "different": len(lists),
        "sha256": hashlib.sha256(whole).hexdigest(),
    }
    return Tagged(list(lists.items()), data)


Named = tuple[dict[str, list[str]], list[list[str]]]  # words of each clip; words without a clip


def _of_labels(source: str) -> Named:
    shards = is_url(source) or Path(source).is_dir()
    labels = by_clip(label_captions(source, "", joined=False))
    clips = ShardFolder(source).ids if shards else read_ids(source)
    return {clip: [c.text for c in labels.get(clip, [])] for clip in clips}, []


def _of_captions(source: str) -> Named:
    skipped: list[str] = []
    captions = read_captions(source, skipped)
    if skipped:
        print(f"left out: {len(skipped)} empty captions, the first: {skipped[0]}", file=sys.stderr)
    named: dict[str, list[str]] = {}
    free = []
    for caption in captions:
        words = PARTS.split(caption.text)
        if caption.clip is None:
            free.append(words)
        else:
            named.setdefault(caption.clip, []).extend(words)
    return named, free
