"""Every number that Pivot reports: arrays in, floats out, numpy only.

Relevance is an explicit mapping from each query to the indices of its relevant items, never an
order of rows. Equal scores are ranked by index, so a number does not depend on who sorted.
Scores are (q, m): a row is a query, a column a candidate. Ranks count from 0.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pivot.errors import DataError

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


# ---- ranks and what is made of them --------------------------------------------------------


def relevant_ranks(similarity: ArrayLike, relevant: Sequence[Collection[int]]) -> list[Ints]:
    """Sorted ranks of each query's relevant items: similarity (q, m) -> q arrays.

    Raises DataError for a query without a relevant item, an index out of range, or NaN.
    """
    scores = _finite(similarity, "similarity")
    if scores.ndim != 2 or len(scores) != len(relevant):
        raise DataError(
            f"similarity {scores.shape} needs one relevant set per row, not {len(relevant)}"
        )
    return [_ranks_in_row(scores[i], items, i) for i, items in enumerate(relevant)]


def _ranks_in_row(row: NDArray[np.floating], items: Collection[int], query: int) -> Ints:
    wanted = np.unique(np.fromiter(items, dtype=np.int64, count=len(items)))
    if not wanted.size:
        raise DataError(f"query {query} has no relevant item; leave it out or give it one")
    if wanted[0] < 0 or wanted[-1] >= row.size:
        raise DataError(
            f"query {query} names item {wanted[-1]}, but there are {row.size} candidates"
        )
    # What stands before an item is counted: for a few items that is far cheaper than sorting.
    before = [np.sum(row > row[j]) + np.sum(row[:j] == row[j]) for j in wanted]
    return np.sort(np.array(before, dtype=np.int64))


def ranks(similarity: ArrayLike, relevant: Sequence[Collection[int]]) -> Ints:
    """Best rank among each query's relevant items (q,), from 0."""
    return np.array([row[0] for row in relevant_ranks(similarity, relevant)], dtype=np.int64)


def recall_at(best_ranks: ArrayLike, k: int) -> float:
    """Share of queries whose best rank is below k (R@k)."""
    return float(np.mean(_some(best_ranks, "ranks") < k))


def median_rank(best_ranks: ArrayLike) -> float:
    """Median rank counted from 1; of an even number of queries the lower middle one (medR)."""
    ordered = np.sort(_some(best_ranks, "ranks"))
    return float(ordered[(ordered.size - 1) // 2] + 1)


def map_at_10(ranks_of_queries: Sequence[ArrayLike]) -> float:
    """Mean over queries of the average precision within the first ten candidates.

    A query's value is the sum over its relevant items found there of (how many so far / rank from
    1), divided by the number of its relevant items or 10. Ranks are sorted here: LAION-CLAP takes
    them in caption order, which scores a perfect result 1.2567.
    """
    if not len(ranks_of_queries):
        raise DataError("no ranks to average: there is no query")
    return float(np.mean([_average_precision_at_10(row) for row in ranks_of_queries]))


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


# ---- classification ------------------------------------------------------------------------


def accuracy(predicted: ArrayLike, truth: ArrayLike) -> float:
    """Share of equal entries of two (n,) arrays."""
    guesses, answers = _some(predicted, "predictions"), _some(truth, "labels")
    if guesses.shape != answers.shape:
        raise DataError(f"{guesses.shape} predictions for {answers.shape} labels")
    return float(np.mean(guesses == answers))


def confusion(predicted: ArrayLike, truth: ArrayLike, classes: int) -> Ints:
    """Counts (classes, classes): row the true class, column the predicted one."""
    counts = np.zeros((classes, classes), dtype=np.int64)
    np.add.at(counts, (_some(truth, "labels"), _some(predicted, "predictions")), 1)
    return counts


def average_precision(scores: ArrayLike, truth: ArrayLike) -> float:
    """Area under precision against recall by steps: sum of (R_n - R_{n-1}) P_n over thresholds.

    Equal scores share one threshold, as in scikit-learn's `average_precision_score`. 0 where no
    item is true.
    """
    values, hits = _finite(scores, "scores"), np.asarray(truth, dtype=bool)
    if values.shape != hits.shape or values.ndim != 1:
        raise DataError(f"scores {values.shape} and truth {hits.shape} must be two equal rows")
    if not hits.any():
        return 0.0
    order = np.argsort(-values, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(values[order])), values.size - 1)
    found = np.cumsum(hits[order])[ends]
    steps = np.diff(found, prepend=0) / found[-1]
    return float(np.sum(steps * found / (ends + 1)))


def average_precisions(scores: ArrayLike, truth: ArrayLike) -> Floats:
    """Average precision of each class (classes,): scores and truth (n, classes).

    A class without a true item has 0, as the reference's NaN -> 0 (VIP-ANT).
    """
    values, hits = np.asarray(scores), np.asarray(truth)
    if values.ndim != 2 or values.shape != hits.shape or not values.size:
        raise DataError(f"scores {values.shape} and truth {hits.shape} must be equal tables")
    columns = range(values.shape[1])
    return np.array([average_precision(values[:, c], hits[:, c]) for c in columns])


def mean_average_precision(scores: ArrayLike, truth: ArrayLike) -> float:
    """Unweighted mean over classes of the average precision: scores and truth (n, classes).

    A class without a true item counts 0, as the reference's NaN -> 0 (VIP-ANT).
    """
    return float(np.mean(average_precisions(scores, truth)))


# ---- the pivot -----------------------------------------------------------------------------


def va_precision_recall(
    nearest: ArrayLike, query_sets: Sequence[Hashable], candidate_sets: Sequence[Hashable]
) -> dict[str, float]:
    """Precision and recall of the nearest neighbour by identical label set (VIP-ANT).

    nearest (q,): index of each query's nearest candidate. A hit has the same label set; recall
    divides it by the number of candidates with the query's set. `group_*` are the unweighted means
    over the label sets of the queries.
    """
    found = _some(nearest, "neighbours")
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


# ---- where the modalities lie --------------------------------------------------------------


def modality_gap(a: ArrayLike, b: ArrayLike) -> float:
    """Distance between the means of two modalities' unit vectors, (n, d) and (m, d): 0..2.

    |mean(a) - mean(b)|, as Liang et al. 2022, "Mind the Gap" (arXiv 2203.02053), section 2.
    """
    return float(np.linalg.norm(_unit(a).mean(axis=0) - _unit(b).mean(axis=0)))


def spread(x: ArrayLike) -> float:
    """Mean cosine of all pairs of different rows of x (n, d): 1 where all point one way.

    (|sum x|^2 - n) / (n (n - 1)) for unit rows; the narrow cone of Liang et al. 2022.
    """
    rows = _unit(x, least=2)
    n = len(rows)
    return float((np.sum(rows.sum(axis=0) ** 2) - n) / (n * (n - 1)))


def alignment(a: ArrayLike, b: ArrayLike) -> float:
    """Mean squared distance of partners, row by row of unit a and b (n, d): 0..4.

    Wang and Isola 2020 (arXiv 2005.10242), equation 1 with alpha = 2.
    """
    first, second = _unit(a), _unit(b)
    if first.shape != second.shape:
        raise DataError(f"{first.shape} and {second.shape} are not partners row by row")
    return float(np.mean(np.sum((first - second) ** 2, axis=1)))


def uniformity(x: ArrayLike) -> float:
    """log mean exp(-2 |x_i - x_j|^2) over all pairs of different unit rows of x (n, d): -8..0.

    Wang and Isola 2020 (arXiv 2005.10242), equation 2 with t = 2; the lower, the more even.
    """
    rows = _unit(x, least=2)
    n = len(rows)
    total = 0.0
    for start in range(0, n, 1024):
        total += float(np.exp(4 * (rows[start : start + 1024] @ rows.T - 1)).sum())
    return float(np.log((total - n) / (n * (n - 1))))


# ---- checks --------------------------------------------------------------------------------


def _some(values: ArrayLike, what: str) -> NDArray[Any]:
    array = np.asarray(values)
    if not array.size:
        raise DataError(f"no {what} to average: there is no query")
    return array


def _finite(values: ArrayLike, what: str) -> NDArray[np.floating]:
    array = np.asarray(values)
    if not array.size:
        raise DataError(f"{what} is empty: there is nothing to rank")
    if not np.isfinite(array).all():
        raise DataError(
            f"{what} holds NaN or infinite values; the embeddings behind it are damaged"
        )
    return array


def _unit(x: ArrayLike, least: int = 1) -> Floats:
    rows = _finite(x, "the table of vectors").astype(np.float64)
    if rows.ndim != 2 or len(rows) < least:
        raise DataError(f"vectors of shape {rows.shape}; give at least {least} rows")
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    if not length.all():
        raise DataError("a vector of length 0 has no direction; the embeddings are damaged")
    return rows / length
