"""What there is to measure on: the clips, their labels, folds and captions, counted and named."""

from __future__ import annotations

import hashlib
import sys
from collections import Counter
from dataclasses import dataclass
from typing import Any

from pivot.data.benchmarks import read_labels, refuse_ids
from pivot.data.captions import Caption, clip_numbers, read_captions
from pivot.data.ids import read_ids
from pivot.data.stream import open_with_sound
from pivot.embeddings.sources import hash_texts
from pivot.errors import DataError
from pivot.evaluation.zero_shot import clip_labels, labels_of
from pivot.settings import Evaluate
from video_prep.shards import ShardFolder

NAMED = 20  # ids that a result names; all are counted
# of the published data sets
CLASSES = {"ESC-50": 50, "UrbanSound8K": 10, "TUT Acoustic Scenes 2017": 15}


@dataclass(frozen=True)
class Clips:
    """The clips that are measured, in the order of their shards, and what is known about them.

    truth: the classes of each clip, in the order in which its labels were written; owners: the
    clip of each caption. Each of labels, folds and captions may be missing.
    """

    shards: ShardFolder
    labels: list[str]
    truth: list[tuple[int, ...]]
    unused_labels: list[str]  # labels that no clip has, where clips have several
    wordless: str | None  # why the labels cannot be asked for in words, if so
    folds: list[int | None]
    captions: list[Caption]
    owners: list[int]
    other_captions: int  # captions of clips that are not measured
    chosen: dict[str, Any] | None  # what --ids asked for and what of it is here
    of: int = 0  # clips with sound that were chosen from
    split: str | None = None  # which of the data set's own parts they are

    @property
    def labelled(self) -> bool:
        """Whether any clip has a label."""
        return any(self.truth)

    @property
    def several(self) -> bool:
        """Whether a clip has several labels, as in AudioSet."""
        return any(len(own) > 1 for own in self.truth)

    def dataset(self) -> dict[str, Any]:
        """{name, official, listed, present, measured, classes}; None where it is not known.

        All are numbers of clips but classes, which is that of the published data set.
        """
        shards = self.shards
        present = len(shards.ids_without_sound) + (self.of or len(shards))
        known = shards.dataset or {"name": None, "official": None, "listed": None}
        counts = {"measured": len(shards), "classes": CLASSES.get(known["name"] or "")}
        part = {} if self.split is None else {"split": self.split}
        return {"present": present, **known, **counts, **part}

    def captions_per_clip(self) -> dict[str, int]:
        """How many clips have how many captions: {"5": 858, "4": 2}."""
        counts = Counter(self.owners)
        found = Counter(counts[i] for i in range(len(self.shards)))
        return {str(n): found[n] for n in sorted(found, reverse=True)}

    def _repeated(self) -> int:
        """Captions whose text is another clip's, too: no encoder can tell which clip is meant."""
        clips: dict[str, set[int]] = {}
        for caption, owner in zip(self.captions, self.owners, strict=True):
            clips.setdefault(caption.text, set()).add(owner)
        return sum(len(clips[caption.text]) > 1 for caption in self.captions)

    def facts(self) -> dict[str, Any]:
        """Counts, hashes and lists that the numbers rest on, for results.json."""
        shards = self.shards
        return {
            "shards": {
                "path": shards.path,
                "fingerprint": shards.fingerprint,
                "clips": len(shards),
                "clips_sha256": hashlib.sha256("\n".join(shards.ids).encode()).hexdigest(),
                "without_sound": len(shards.ids_without_sound),
            },
            "ids": self.chosen,
            "labels": self.labels,
            "unused_labels": self.unused_labels,
            "captions": {
                "count": len(self.captions),
                "left_out": self.other_captions,
                "repeated": self._repeated(),
                "sha256": hash_texts([caption.text for caption in self.captions]),
            },
        }


def find_clips(settings: Evaluate) -> Clips:
    """Open the shards and read what their clips, --ids, --labels and --captions say.

    Raises DataError where there is nothing to measure, or a file is that of another data set.
    """
    whole = shards = open_with_sound(settings.shards)
    chosen = None
    if settings.ids is not None:
        shards, chosen = _chosen(whole, settings.ids)
    if settings.split is not None:
        shards = _of_split(shards, settings.split)
    labels, truth, unused = _labels(settings, shards, whole)
    folds = _folds(shards)
    captions, owners, others = _captions(settings, shards)
    if settings.labels and not any(truth):
        raise DataError(f"no clip of {shards.path} has a label; --labels cannot be used")
    if not any(truth) and not captions and not shards.num_frames:
        raise DataError(
            f"{shards.path} has neither labels, captions nor frames: nothing to measure; "
            "give --captions, or prepare the clips from a list with labels"
        )
    wordless = _wordless(labels, whole, bool(captions or shards.num_frames))
    clips = Clips(
        shards, labels, truth, unused, wordless, folds, captions, owners, others, chosen,
        len(whole), settings.split,
    )  # fmt: skip
    if settings.pool == "per_fold":
        _require_folds(clips)
    return clips


def _labels(
    settings: Evaluate, shards: ShardFolder, whole: ShardFolder
) -> tuple[list[str], list[tuple[int, ...]], list[str]]:
    """Labels, the classes of each clip, and the labels that are left out.

    The labels are those of --labels, or of the whole folder: a choice of clips makes the question
    no easier. Where clips have several labels, only labels that occur are classes (AudioSet's
    ontology has 632 names, 527 of them occur); else the others are wrong answers and stay.
    """
    labels = read_labels(settings.labels) if settings.labels else labels_of(whole)
    truth = clip_labels(shards, labels) if labels else []
    if not any(len(own) > 1 for own in truth):
        return labels, truth, []
    used = {c for own in truth for c in own}
    kept = [name for c, name in enumerate(labels) if c in used]
    return kept, clip_labels(shards, kept), [x for c, x in enumerate(labels) if c not in used]


def _wordless(labels: list[str], shards: ShardFolder, more: bool) -> str | None:
    """Why labels are no words (ids such as /m/09x0r); an error where nothing else is measured."""
    try:
        refuse_ids(labels, shards.path)
    except DataError as error:
        if not more:
            raise
        return str(error)
    return None


def _require_folds(clips: Clips) -> None:
    if clips.several or not any(fold is not None for fold in clips.folds):
        what = "clips with several labels" if clips.several else "no clip with a fold"
        raise DataError(
            f"{clips.shards.path} holds {what}; leave out --pool per_fold, or prepare the clips "
            "from the data set's own folder"
        )


def _chosen(shards: ShardFolder, path: str) -> tuple[ShardFolder, dict[str, Any]]:
    """The clips that a list of ids names, in the order of the shards."""
    listed = read_ids(path)
    ids = list(dict.fromkeys(listed))
    places = clip_numbers([Caption("", "", name) for name in ids], shards.ids)
    unknown = [name for name, place in zip(ids, places, strict=True) if place is None]
    numbers = sorted({place for place in places if place is not None})
    if not numbers:
        raise DataError(
            f"no id of {path} (such as {ids[0]}) is a clip of {shards.path} (such as "
            f"{shards.ids[0]}); is it the list of another data set?"
        )
    facts = {
        "path": path,
        "listed": len(listed),
        "repeated": len(listed) - (len(unknown) + len(numbers)),
        "of": len(shards),
        "unknown": len(unknown),
        "unknown_ids": unknown[:NAMED],
    }
    return shards.only(numbers), facts


def _of_split(shards: ShardFolder, name: str) -> ShardFolder:
    """The clips that the data set's own list names so."""
    names = [facts.get("split") for facts in shards.all_facts()]
    numbers = [i for i, own in enumerate(names) if own == name]
    if not numbers:
        there = ", ".join(sorted({own for own in names if own})) or "none at all"
        raise DataError(
            f"--split {name}: no clip of {shards.path} is named so; the splits there: {there}"
        )
    return shards.only(numbers)


def _folds(shards: ShardFolder) -> list[int | None]:
    folds: list[int | None] = []
    for clip, facts in zip(shards.ids, shards.all_facts(), strict=True):
        fold = facts.get("fold")
        if fold is not None and (isinstance(fold, bool) or not isinstance(fold, int)):
            raise DataError(f"clip {clip} of {shards.path} has the fold {fold!r}, not a number")
        folds.append(fold)
    return folds


def _captions(settings: Evaluate, shards: ShardFolder) -> tuple[list[Caption], list[int], int]:
    """Captions of clips that are here, with the number of their clip; and how many are not."""
    if settings.captions is None and not any(facts["captions"] for facts in shards.all_facts()):
        return [], [], 0
    skipped: list[str] = []
    captions = read_captions(settings.captions or settings.shards, skipped)
    for line in skipped:
        print(f"left out: {line}", file=sys.stderr)
    placed = [
        (caption, number)
        for caption, number in zip(captions, clip_numbers(captions, shards.ids), strict=True)
        if number is not None
    ]
    if not placed:
        raise DataError(
            f"no caption of {settings.captions} belongs to a clip of {shards.path} "
            f"(such as {shards.ids[0]}); its clip ids must be those of the shards"
        )
    others = len(captions) - len(placed)
    return [caption for caption, _ in placed], [number for _, number in placed], others
