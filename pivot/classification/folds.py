"""Which clips train, choose the checkpoint and test: fold by fold, or with a test set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from pivot.classification.labels import Labelled
from pivot.errors import DataError, SettingsError

VALIDATION = 5104  # names the generator of validation parts beside others of the same seed
# names that lists give to their splits (FSD50K: train, val; VGGSound: train, test)
CHOOSES, TESTS = ("val", "valid", "validation"), ("test", "eval", "evaluation")
Share = float | Literal["split"]


@dataclass(frozen=True)
class Split:
    """Positions among the labelled clips; `test` is of the test shards where they are others."""

    fold: int | None  # None: a test set of its own
    train: list[int]
    validation: list[int]
    test: list[int]


def fold_splits(data: Labelled, wanted: Sequence[int], validation: Share, seed: int) -> list[Split]:
    """One split a fold: its clips test, the others train or, a share of them, choose."""
    folds = _folds(data)
    numbers = sorted(set(folds))
    unknown = [number for number in wanted if number not in numbers]
    if unknown:
        raise SettingsError(
            f"--folds {unknown[0]}: the clips of {data.shards.path} have the folds "
            f"{', '.join(map(str, numbers))}"
        )
    if len(numbers) < 2:
        raise DataError(
            f"all clips of {data.shards.path} are of fold {numbers[0]}, so nothing is left to "
            "train on; give --test SHARDS"
        )
    splits = []
    for number in wanted or numbers:
        rest = [i for i, fold in enumerate(folds) if fold != number]
        test = [i for i, fold in enumerate(folds) if fold == number]
        splits.append(_split(data, number, rest, test, validation, seed))
    for split in splits:
        _refuse_missing(data, split, [data.classes[i] for i in split.test], "tests")
    return splits


def has_test_part(data: Labelled) -> bool:
    """Whether the clips have no folds, and the data set's own list names some of them test."""
    named = any(split in TESTS for _, split in data.parts)
    return named and all(fold is None for fold, _ in data.parts)


def validation_part(data: Labelled) -> list[int]:
    """Positions of the clips that the data set's own list names validation."""
    return [i for i, (_, split) in enumerate(data.parts) if split in CHOOSES]


def own_split(data: Labelled, validation: Share, seed: int) -> Split:
    """One split as the data set's own list names it: its test clips test, the others do not."""
    tests = [split in TESTS for _, split in data.parts]
    test = [i for i, yes in enumerate(tests) if yes]
    rest = [i for i, yes in enumerate(tests) if not yes]
    split = _split(data, None, rest, test, validation, seed)
    _refuse_missing(data, split, [data.classes[i] for i in test], "the test part has")
    return split


def test_split(data: Labelled, test: Labelled, validation: Share, seed: int) -> Split:
    """One split: all clips of `data` train or choose, those of `test` test."""
    split = _split(
        data, None, list(range(len(data.clips))), list(range(len(test.clips))), validation, seed
    )
    _refuse_missing(data, split, test.classes, "--test has")
    return split


def stratified(
    classes: Sequence[Sequence[int]], share: float, rng: np.random.Generator
) -> list[bool]:
    """Which clips are drawn, class by class: round(share x clips of the class) of each.

    A clip of several labels counts with its rarest. At least one clip of a class that has two, and
    never all of them.
    """
    counts = np.bincount([c for own in classes for c in own])
    groups: dict[int, list[int]] = {}
    for i, own in enumerate(classes):
        groups.setdefault(min(own, key=lambda c: (counts[c], c)), []).append(i)
    drawn = [False] * len(classes)
    for _, members in sorted(groups.items()):
        number = min(max(round(share * len(members)), 1), len(members) - 1)
        for i in rng.permutation(members)[:number]:
            drawn[i] = True
    return drawn


def _split(
    data: Labelled, fold: int | None, rest: list[int], test: list[int], share: Share, seed: int
) -> Split:
    if not share:
        return Split(fold, rest, [], test)
    if share == "split":
        return _named(data, fold, rest, test)
    rng = np.random.default_rng([seed, VALIDATION, fold or 0])
    drawn = stratified([data.classes[i] for i in rest], share, rng)
    train = [i for i, chosen in zip(rest, drawn, strict=True) if not chosen]
    return Split(fold, train, [i for i, chosen in zip(rest, drawn, strict=True) if chosen], test)


def _named(data: Labelled, fold: int | None, rest: list[int], test: list[int]) -> Split:
    """Of `rest`, the clips that the data set's own list names validation choose."""
    part = set(validation_part(data))
    chosen = [i for i in rest if i in part]
    if not chosen:
        raise DataError(
            f"--validation split: no clip of {data.shards.path} is of a split called "
            f"{' or '.join(CHOOSES)}; give a share such as 0.1"
        )
    return Split(fold, [i for i in rest if i not in part], chosen, test)


def _folds(data: Labelled) -> list[int]:
    """Fold of each labelled clip."""
    found = [fold for fold, _ in data.parts]
    without = [data.clips[i] for i, fold in enumerate(found) if fold is None]
    if len(without) == len(found):
        raise DataError(
            f"the clips of {data.shards.path} have no folds; give --test SHARDS, or prepare the "
            "data set from its own folder (pivot prepare-audio ESC-50-master), which keeps them"
        )
    if without:
        raise DataError(
            f"{len(without)} of {len(found)} clips of {data.shards.path} have no fold, such as "
            f"{data.shards.ids[without[0]]!r}; prepare them again, or leave them out"
        )
    return [int(fold) for fold in found if fold is not None]


def _refuse_missing(
    data: Labelled, split: Split, tested: Sequence[Sequence[int]], what: str
) -> None:
    """A class that is tested needs a clip to train on."""
    known = {c for i in split.train for c in data.classes[i]}
    missing = sorted({c for own in tested for c in own} - known)
    if missing:
        who = f"fold {split.fold} {what}" if split.fold is not None else what
        raise DataError(
            f"{who} {len(missing)} classes of which no clip is left to train on, such as "
            f"{data.labels[missing[0]]!r}; add clips, leave those out, or see --validation 0"
        )
