"""Labelled clips as numbers, the kind of target they call for, and their weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pivot.classification.head import Target
from pivot.errors import DataError, SettingsError
from pivot.evaluation.zero_shot import clip_labels
from video_prep.shards import ShardFolder

Floats = NDArray[np.float64]
Metric = Literal["accuracy", "map", "mauc"]


@dataclass(frozen=True)
class Labelled:
    """Clips that have labels: their numbers in the shards and their classes, clip by clip."""

    shards: ShardFolder
    labels: list[str]
    clips: list[int]
    classes: list[tuple[int, ...]]

    @classmethod
    def of(cls, shards: ShardFolder, labels: Sequence[str]) -> Labelled:
        """Look up the labels; one that is not in the list is an error, clips without are left."""
        found = clip_labels(shards, labels)
        clips = [i for i, own in enumerate(found) if own]
        if not clips:
            raise DataError(f"no clip of {shards.path} has a label; give labelled clips")
        return cls(shards, list(labels), clips, [found[i] for i in clips])

    @property
    def unlabelled(self) -> int:
        """Clips without a label, which are left out."""
        return len(self.shards) - len(self.clips)

    @cached_property
    def parts(self) -> list[tuple[int | None, str | None]]:
        """Fold and split of each clip as the data set's own list names them; read once."""
        facts = [(one.get("fold"), one.get("split")) for one in self.shards.all_facts()]
        return [facts[clip] for clip in self.clips]

    def only(self, kept: Sequence[int]) -> Labelled:
        """The same clips with these classes alone, renumbered in this order; each is needed."""
        place = {c: i for i, c in enumerate(kept)}
        classes = [tuple(place[c] for c in own) for own in self.classes]
        return Labelled(self.shards, [self.labels[c] for c in kept], self.clips, classes)


def used_alone(*parts: Labelled) -> tuple[list[Labelled], list[str]]:
    """Parts of one label list with the labels that their clips have, and the labels left out.

    A label that no clip has cannot be learnt: AudioSet's ontology has 632 names, 527 of which
    occur, and the mean of bce is over those.
    """
    used = sorted({c for part in parts for own in part.classes for c in own})
    there = set(used)
    unused = [label for c, label in enumerate(parts[0].labels) if c not in there]
    return [part.only(used) for part in parts], unused


def target_of(target: Literal["auto"] | Target, *parts: Labelled) -> Target:
    """The loss for these clips: `auto` takes bce as soon as one clip has several labels."""
    for part in parts:
        for clip, own in zip(part.clips, part.classes, strict=True):
            if len(own) < 2:
                continue
            if target == "cross_entropy":
                raise DataError(
                    f"clip {part.shards.ids[clip]} of {part.shards.path} has {len(own)} labels "
                    "and --target cross_entropy takes one; set --target bce"
                )
            return "bce" if target == "auto" else target
    return "cross_entropy" if target == "auto" else target


def metric_of(metric: Literal["auto"] | Metric, target: Target, *parts: Labelled) -> Metric:
    """What is reported and chooses: `auto` takes map for bce and for several labels."""
    several = next(
        (f"clip {part.shards.ids[clip]} of {part.shards.path}"
         for part in parts
         for clip, own in zip(part.clips, part.classes, strict=True) if len(own) > 1),
        None,
    )  # fmt: skip
    if metric == "auto":
        return "map" if target == "bce" or several else "accuracy"
    if metric == "accuracy" and several:
        raise SettingsError(
            f"{several} has several labels, so there is no accuracy; set --metric map or mauc"
        )
    return metric


def clip_weights(classes: Sequence[Sequence[int]]) -> Floats:
    """Weights (n,) of clips, each with its classes: those of rare classes are drawn as often.

    A clip's weight is the sum over its classes of 1000 / (count of the class + 1), counted over
    these n clips (AST; VIP-ANT's code, data/audioset_cls.py).
    """
    counts = np.bincount([c for own in classes for c in own])
    return np.array([sum(1000.0 / (counts[c] + 1.0) for c in own) for own in classes])


def targets(classes: Sequence[Sequence[int]], number: int) -> NDArray[np.float32]:
    """Classes of clips as 0 and 1 (clips, number of classes)."""
    table = np.zeros((len(classes), number), np.float32)
    for row, own in zip(table, classes, strict=True):
        row[list(own)] = 1
    return table
