"""Folds of a data set: one number over all clips, and the mean and deviation over the folds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pivot.evaluation.zero_shot import zero_shot

Truth = Sequence[Sequence[int]]


def fold_scores(
    audio: NDArray[np.float32],
    text: NDArray[np.float32],
    truth: Truth,
    labels: Sequence[str],
    folds: Sequence[int | None],
) -> dict[str, Any] | None:
    """Zero-shot accuracy of audio (n, d) against labels text (C, d) by fold; None without folds.

    {pooled, mean, deviation, folds: [{fold, n, accuracy}], without_fold}. pooled is one accuracy
    over all clips (the reference), mean and deviation (population) are over the folds: they differ
    where folds differ in size, as UrbanSound8K's do. Clips without a fold count in pooled alone.
    None, too, where clips have several labels.
    """
    measured = [i for i, classes in enumerate(truth) if classes]
    numbers = sorted({fold for i in measured if (fold := folds[i]) is not None})
    if not numbers or any(len(classes) > 1 for classes in truth):
        return None
    rows = []
    for number in numbers:
        part = [i for i in measured if folds[i] == number]
        found = zero_shot(audio[part], text, [truth[i] for i in part], labels)
        rows.append({"fold": number, "n": len(part), "accuracy": found["accuracy"]})
    scores = [row["accuracy"] for row in rows]
    return {
        "pooled": zero_shot(audio, text, truth, labels)["accuracy"],
        "mean": float(np.mean(scores)),
        "deviation": float(np.std(scores)),
        "folds": rows,
        "without_fold": sum(folds[i] is None for i in measured),
    }
