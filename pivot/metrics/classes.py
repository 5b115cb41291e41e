"""Numbers of classification: accuracy, confusion, average precision, area under the ROC."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from pivot.errors import DataError
from pivot.metrics.checks import Floats, Ints, finite, some


def accuracy(predicted: ArrayLike, truth: ArrayLike) -> float:
    """Share of equal entries of two (n,) arrays."""
    guesses, answers = some(predicted, "predictions"), some(truth, "labels")
    if guesses.shape != answers.shape:
        raise DataError(f"{guesses.shape} predictions for {answers.shape} labels")
    return float(np.mean(guesses == answers))


def confusion(predicted: ArrayLike, truth: ArrayLike, classes: int) -> Ints:
    """Counts (classes, classes): row the true class, column the predicted one."""
    counts = np.zeros((classes, classes), dtype=np.int64)
    np.add.at(counts, (some(truth, "labels"), some(predicted, "predictions")), 1)
    return counts


def average_precision(scores: ArrayLike, truth: ArrayLike) -> float:
    """Area under precision against recall by steps: sum of (R_n - R_{n-1}) P_n over thresholds.

    Equal scores share one threshold, as in scikit-learn's `average_precision_score`. 0 where no
    item is true.
    """
    values, hits = finite(scores, "scores"), np.asarray(truth, dtype=bool)
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


def roc_auc(scores: ArrayLike, truth: ArrayLike) -> float:
    """Area under the ROC of one class: scores and truth (n,); NaN where all are true, or none.

    The chance that a true item scores above another one, a tie counting half (Mann and Whitney),
    which is scikit-learn's `roc_auc_score`.
    """
    values, hits = finite(scores, "scores"), np.asarray(truth, dtype=bool)
    if values.shape != hits.shape or values.ndim != 1:
        raise DataError(f"{values.shape} scores for {hits.shape} truths")
    true = int(hits.sum())
    if not 0 < true < hits.size:
        return float("nan")
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks = np.cumsum(counts) - (counts - 1) / 2  # from 1, equal scores at their mean
    above = ranks[place[hits]].sum() - true * (true + 1) / 2
    return float(above / (true * (hits.size - true)))


def mean_roc_auc(scores: ArrayLike, truth: ArrayLike) -> float:
    """Unweighted mean over classes of `roc_auc` (macro): scores and truth (n, classes).

    Classes that every item has, or none, have no area and are left out. DataError where all are so.
    """
    values, hits = np.asarray(scores), np.asarray(truth)
    if values.ndim != 2 or values.shape != hits.shape or not values.size:
        raise DataError(f"scores {values.shape} and truth {hits.shape} must be equal tables")
    areas = np.array([roc_auc(values[:, c], hits[:, c]) for c in range(values.shape[1])])
    if np.isnan(areas).all():
        raise DataError("no class has both true and other items, so there is no area under the ROC")
    return float(np.nanmean(areas))
