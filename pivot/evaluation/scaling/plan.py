"""Which trainings make a scaling curve: sizes, nested orders of the pairs, finished rows."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pivot.data.pairs import Pairs
from pivot.errors import RunError, SettingsError
from pivot.evaluation.scaling.line import LEAST_SIZES
from video_prep.files import create_once

SUBSET = 6101  # what the generator of the nested orders is for
DOUBLINGS = 7  # the default sizes start at 1/128 of the pairs
REFERENCE_SEED = 1213
PLAN, ROWS = "plan.json", "trainings"
Key = tuple[int, int]  # size and seed of a training


def choose_sizes(asked: Sequence[int], pairs: int, fractions: Sequence[float] = ()) -> list[int]:
    """Sizes in rising order: those asked for, or doubling from 1/128 of all pairs to all.

    A fraction f of n pairs is int(n * f), as in the reference: 0.01 of 44118 is 441. Raises
    SettingsError for a size outside 2..n and for fewer than three different ones.
    """
    if asked and fractions:
        raise SettingsError("--sizes and --fractions both say how many pairs; leave one out")
    flag = "--fractions" if fractions else "--sizes"
    wanted = tuple(asked) or tuple(int(pairs * share) for share in fractions)
    sizes = sorted(set(wanted or (n for i in range(DOUBLINGS + 1) if (n := pairs >> i) >= 2)))
    if wanted and (sizes[0] < 2 or sizes[-1] > pairs):
        wrong = sizes[0] if sizes[0] < 2 else sizes[-1]
        raise SettingsError(f"{flag} {wrong} is not between 2 and the {pairs} pairs of --pairs")
    if len(sizes) < LEAST_SIZES:
        raise SettingsError(
            f"{len(sizes)} sizes make no line with a confidence band; give {LEAST_SIZES} or more "
            f"different {flag} (there are {pairs} pairs)"
        )
    return sizes


def check_seeds(seeds: Sequence[int]) -> tuple[int, ...]:
    """The seeds, if they differ and are not negative; else SettingsError."""
    wrong = [seed for seed in seeds if seed < 0 or list(seeds).count(seed) > 1]
    if wrong or not seeds:
        raise SettingsError(f"--seeds {' '.join(map(str, seeds))} must be different numbers >= 0")
    return tuple(seeds)


def nested_order(
    pairs: int, seed: int, order: Literal["own", "vip_ant"] = "own"
) -> NDArray[np.int64]:
    """Order (n,) of n pairs; every subset is a prefix of it.

    own: another one for every seed. vip_ant: the reference's, a permutation of a permutation by
    numpy's global generator at seed 1213; `seed` then changes the training alone.
    """
    if order == "vip_ant":
        legacy = np.random.RandomState(REFERENCE_SEED)
        return legacy.permutation(legacy.permutation(pairs))
    return np.random.default_rng([seed, SUBSET]).permutation(pairs)


def first_pairs(pairs: Pairs, order: NDArray[np.int64], size: int) -> Pairs:
    """The first `size` pairs of an order."""
    rows = order[:size]
    return Pairs(
        [pairs.audio_ids[i] for i in rows],
        [pairs.captions[i] for i in rows],
        [pairs.scores[i] for i in rows],
    )


def hash_pairs(pairs: Pairs) -> str:
    """sha256 over the pairs, in their order."""
    digest = hashlib.sha256()
    for audio, caption in zip(pairs.audio_ids, pairs.captions, strict=True):
        digest.update(json.dumps([audio, caption]).encode())
    return digest.hexdigest()


def keep_plan(folder: Path, plan: dict[str, Any]) -> None:
    """Write the plan into a run folder, or compare it with the one that is there.

    Raises RunError that names what has changed since the curve was begun: settings name files,
    and a file may be another one by now.
    """
    path = folder / PLAN
    if create_once(path, json.dumps(plan, indent=1)):
        return
    try:
        before = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise RunError(f"{path} is damaged ({error}); begin in another folder") from None
    for name, value in plan.items():
        if before.get(name) != value:
            raise RunError(
                f"--out {folder} was begun with other {name} than now; restore what it was begun "
                "with, or name another folder"
            )


def row_path(folder: Path, key: Key) -> Path:
    """Where the row of a finished training is."""
    return folder / ROWS / f"{key[0]:07d}-{key[1]}.json"


def read_rows(folder: Path, keys: Sequence[Key]) -> dict[Key, dict[str, Any]]:
    """Rows of the trainings that are finished. RunError for a row that cannot be read."""
    found = {}
    for key in keys:
        path = row_path(folder, key)
        try:
            found[key] = json.loads(path.read_text("utf-8"))
            known = (found[key]["pairs"], found[key]["seed"]) == key
            known = known and math.isfinite(found[key]["zero_shot"])
        except FileNotFoundError:
            continue
        except (ValueError, KeyError, TypeError) as error:
            raise RunError(f"{path} is damaged ({error}); delete it to train again") from None
        if not known:
            raise RunError(
                f"{path} is no row of that training, or its score is not a number; delete it to "
                "train again"
            )
    return found
