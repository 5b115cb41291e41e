"""Ranks of relevant items, and what is made of them: recall, median, mAP@10, precision."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pivot.errors import DataError
from pivot.metrics.checks import Ints, finite, some


def relevant_ranks(
    similarity: ArrayLike, relevant: Sequence[Collection[int]], as_given: bool = False
) -> list[Ints]:
    """Sorted ranks of each query's relevant items: similarity (q, m) -> q arrays.

    as_given: in the order of the items in `relevant` (captions as they are written) instead. Raises
    DataError for a query without a relevant item, an index out of range, or NaN.
    """
    scores = finite(similarity, "similarity")
    if scores.ndim != 2 or len(scores) != len(relevant):
        raise DataError(
            f"similarity {scores.shape} needs one relevant set per row, not {len(relevant)}"
        )
    return [_ranks_in_row(scores[i], items, i, as_given) for i, items in enumerate(relevant)]


def _ranks_in_row(
    row: NDArray[np.floating], items: Collection[int], query: int, as_given: bool
) -> Ints:
    wanted = np.array(list(dict.fromkeys(items)), dtype=np.int64)
    if not wanted.size:
        raise DataError(f"query {query} has no relevant item; leave it out or give it one")
    if wanted.min() < 0 or wanted.max() >= row.size:
        raise DataError(
            f"query {query} names item {wanted.max()}, but there are {row.size} candidates"
        )
    # What stands before an item is counted: for a few items that is far cheaper than sorting.
    before = [np.sum(row > row[j]) + np.sum(row[:j] == row[j]) for j in wanted]
    found = np.array(before, dtype=np.int64)
    return found if as_given else np.sort(found)


def ranks(similarity: ArrayLike, relevant: Sequence[Collection[int]]) -> Ints:
    """Best rank among each query's relevant items (q,), from 0."""
    return np.array([row[0] for row in relevant_ranks(similarity, relevant)], dtype=np.int64)


def recall_at(best_ranks: ArrayLike, k: int) -> float:
    """Share of queries whose best rank is below k (R@k)."""
    return float(np.mean(some(best_ranks, "ranks") < k))


def median_rank(best_ranks: ArrayLike) -> float:
    """Median rank counted from 1; of an even number of queries the lower middle one (medR)."""
    ordered = np.sort(some(best_ranks, "ranks"))
    return float(ordered[(ordered.size - 1) // 2] + 1)


def laion_median_rank(best_ranks: ArrayLike) -> float:
    """Median rank as LAION-CLAP's code counts it: the floor of numpy's median, plus 1."""
    return float(np.floor(np.median(some(best_ranks, "ranks"))) + 1)


def map_at_10(ranks_of_queries: Sequence[ArrayLike]) -> float:
    """Mean over queries of the average precision within the first ten candidates.

    A query's value is the sum over its relevant items found there of (how many so far / rank from
    1), divided by the number of its relevant items or 10. Ranks are sorted here, as in the tool
    that LAION-CLAP's code cites; `laion_map_at_10` is what that code does.
    """
    if not len(ranks_of_queries):
        raise DataError("no ranks to average: there is no query")
    return float(np.mean([_average_precision_at_10(row) for row in ranks_of_queries]))


def laion_map_at_10(ranks_of_queries: Sequence[ArrayLike]) -> float:
    """`map_at_10` as LAION-CLAP's code takes it: ranks (from 0) in the order of the captions.

    The j-th caption that is among the first ten counts j / (its rank from 1), whatever the others'
    ranks; the sum is divided by the number of captions. It is never below `map_at_10` for up to
    ten captions: five captions at the first five ranks score 1 in order and up to 1.74 out of it.
    """
    if not len(ranks_of_queries):
        raise DataError("no ranks to average: there is no query")
    values = []
    for row in ranks_of_queries:
        places = np.atleast_1d(np.asarray(row))
        found = places[places < 10]
        values.append(np.sum(np.arange(1, found.size + 1) / (found + 1)) / places.size)
    return float(np.mean(values))


def precision_at(ranks_of_queries: Sequence[ArrayLike], k: int) -> float:
    """Mean over queries of the share of the first k candidates that are relevant.

    With five captions a sound this is what VIP-ANT's code prints as "t1" and "t5" (k = 1, 5): it
    counts gold captions among the first k, and is not R@k.
    """
    if not len(ranks_of_queries):
        raise DataError("no ranks to average: there is no query")
    return float(np.mean([np.sum(np.asarray(row) < k) / k for row in ranks_of_queries]))


def _average_precision_at_10(row: ArrayLike) -> float:
    places = np.sort(np.atleast_1d(np.asarray(row)))
    found = places[places < 10]
    return float(np.sum(np.arange(1, found.size + 1) / (found + 1)) / min(places.size, 10))
