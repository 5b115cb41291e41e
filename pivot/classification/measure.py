"""Scores of a classifier on clips, and the numbers that are made of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from pivot import metrics
from pivot.classification.head import Target
from pivot.classification.labels import Metric, targets
from pivot.data.stream import SoundItems
from pivot.encoders.clip import CHUNK, in_chunks, parts_of
from pivot.errors import DataError

Floats = NDArray[np.float32]


@torch.no_grad()
def logits_of(
    encoder: nn.Module, head: nn.Module, sounds: SoundItems, clips: Sequence[int], workers: int = 0
) -> Floats:
    """Logits (n, C) of clips, each in its middle window; both modules go into eval mode.

    In float32 and in chunks of one size, so they do not depend on what else is measured.
    """
    encoder.eval()
    head.eval()
    device = next(encoder.parameters()).device
    size = CHUNK.get(device.type, 32)
    parts = list(parts_of(list(clips), size))
    loader = DataLoader(
        _Parts(sounds, parts),
        batch_size=None,
        num_workers=workers,
        generator=torch.Generator().manual_seed(0),  # else torch draws from the global one
    )
    found = [head(in_chunks(encoder, fbank.to(device), size)).cpu() for fbank in loader]
    return torch.cat(found).numpy()


class _Parts(Dataset[Tensor]):
    """Encoder inputs of part after part of the clips."""

    def __init__(self, sounds: SoundItems, parts: list[Sequence[int]]) -> None:
        self.sounds, self.parts = sounds, parts

    def __len__(self) -> int:
        return len(self.parts)

    def __getitem__(self, number: int) -> Tensor:
        part = self.parts[number]
        return torch.stack(self.sounds.fbanks(part, [None] * len(part)))


def measured(
    logits: Floats,
    classes: Sequence[Sequence[int]],
    labels: Sequence[str],
    target: Target,
    metric: Metric | None = None,
) -> dict[str, Any]:
    """Numbers of logits (n, C) against the classes of each clip.

    cross_entropy, and mse with metric accuracy: accuracy, per_class (share of a class's clips that
    were found), confusion (C, C, row the true class). Else map, the unweighted mean of per_class,
    each class's average precision; and accuracy where every clip has one class. The metric is there
    in any case. Classes without clips are named and do not count. The logits rank as their sigmoids
    would, but have no ties at 1.
    """
    if not np.isfinite(logits).all():
        raise DataError("the classifier gives NaN or infinite scores: its training diverged")
    present = sorted({c for own in classes for c in own})
    absent = [label for c, label in enumerate(labels) if c not in set(present)]
    found: dict[str, Any] = {"n": len(classes), "classes_without_clips": absent}
    answers = [own[0] for own in classes]
    if all(len(own) == 1 for own in classes):
        found["accuracy"] = metrics.accuracy(logits.argmax(axis=1), answers)
    truth = targets(classes, len(labels))[:, present] > 0
    scores = logits[:, present]
    more = {"mauc": metrics.mean_roc_auc(scores, truth)} if metric == "mauc" else {}
    if target == "cross_entropy" or (target == "mse" and metric == "accuracy"):
        table = metrics.confusion(logits.argmax(axis=1), answers, len(labels))
        shares = {labels[c]: float(table[c, c] / table[c].sum()) for c in present}
        more |= {"map": metrics.mean_average_precision(scores, truth)} if metric == "map" else {}
        return found | more | {"per_class": shares, "confusion": table.tolist()}
    values = metrics.average_precisions(scores, truth)
    per_class = {labels[c]: float(value) for c, value in zip(present, values, strict=True)}
    return found | more | {"map": float(values.mean()), "per_class": per_class}
