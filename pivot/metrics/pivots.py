"""Retrieval by label set, and pivotability (VIP-ANT)."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike

from pivot.errors import DataError
from pivot.metrics.checks import Floats, some


def va_precision_recall(
    nearest: ArrayLike, query_sets: Sequence[Hashable], candidate_sets: Sequence[Hashable]
) -> dict[str, float]:
    """Precision and recall of the nearest neighbour by identical label set (VIP-ANT).

    nearest (q,): index of each query's nearest candidate. A hit has the same label set; recall
    divides it by the number of candidates with the query's set. `group_*` are the unweighted means
    over the label sets of the queries.
    """
    found = some(nearest, "neighbours")
    if len(found) != len(query_sets):
        raise DataError(f"{len(found)} neighbours for {len(query_sets)} queries")
    sizes: dict[Hashable, int] = {}
    for group in candidate_sets:
        sizes[group] = sizes.get(group, 0) + 1
    same = [candidate_sets[int(j)] == group for j, group in zip(found, query_sets, strict=True)]
    hits = np.array(same, dtype=float)
    shares = hits / np.array([max(sizes.get(group, 0), 1) for group in query_sets])
    return {
        "precision": float(hits.mean()),
        "recall": float(shares.mean()),
        "group_precision": _mean_of_groups(hits, query_sets),
        "group_recall": _mean_of_groups(shares, query_sets),
    }


def _mean_of_groups(values: Floats, groups: Sequence[Hashable]) -> float:
    members: dict[Hashable, list[float]] = {}
    for value, group in zip(values, groups, strict=True):
        members.setdefault(group, []).append(float(value))
    return float(np.mean([np.mean(row) for row in members.values()]))


def pivot_shares(
    nearest_images: ArrayLike, nearest_captions: ArrayLike, gold: Mapping[int, Collection[int]]
) -> Floats:
    """Share of each clip's gold captions that its nearest images reach (clips of gold,).

    nearest_images (n, k): images nearest to each sound. nearest_captions (images, 5): captions
    nearest to each image. gold: clip -> its captions; the distinct ones found among all captions of
    its k images are divided by their number (VIP-ANT, appendix F).
    """
    images, captions = np.asarray(nearest_images), np.asarray(nearest_captions)
    if not gold or images.ndim != 2 or captions.ndim != 2:
        raise DataError("pivotability needs gold captions and two tables of neighbours")
    shares = []
    for clip, own in gold.items():
        if not own:
            raise DataError(f"clip {clip} has no gold caption; leave it out or give it one")
        reached = set(captions[images[clip]].ravel().tolist())
        shares.append(len(reached & set(own)) / len(set(own)))
    return np.array(shares)


def pivotability(
    nearest_images: ArrayLike, nearest_captions: ArrayLike, gold: Mapping[int, Collection[int]]
) -> float:
    """Mean over clips of `pivot_shares` (VIP-ANT)."""
    return float(np.mean(pivot_shares(nearest_images, nearest_captions, gold)))
