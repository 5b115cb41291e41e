"""Targets of the one loss as formulas: same recordings, soft labels, estimated correspondences.

All are pure functions of tensors and all end in `contrastive`. Its targets weigh the rows of b for
each a, `back` those of a for each b.
Legend: N items of the whole batch, d dimensions, M teachers; a is the side of the rows (sounds), b
that of the columns (captions); tau is a temperature, 1 / scale.

By hand, SALSA's second stage: `loss = distillation(audio, text, cosines(teach_a, teach_b), 0.05)`;
CLAP curation's: `forth, back = soft_labels(teach_a, teach_b, 0.3)`, then
`loss = soft_label_loss(audio, text, scale, forth, back, clamp=100)`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from pivot.training.loss import contrastive

SoftKind = Literal["raw", "row_normalised", "softmax"]


def positives_of(recording_ids: Tensor | Sequence[int] | Sequence[str]) -> Tensor:
    """Which items are of the same recording: (N, N) booleans from N ids."""
    if not isinstance(recording_ids, Tensor):
        numbers: dict[int | str, int] = {}
        recording_ids = torch.tensor([numbers.setdefault(i, len(numbers)) for i in recording_ids])
    ids = recording_ids.flatten()
    return ids[:, None] == ids[None]


def shared_weights(positives: Tensor) -> Tensor:
    """Targets (N, N) of a positive mask, for both directions: every positive entry weighs the same.

    The mean is over all positive entries, not by row (SALSA, stage 1), so a recording with more
    captions weighs more. The mask is symmetric, so `back` is this as well.
    """
    mask = positives.to(torch.get_default_dtype())
    return mask * (len(mask) / mask.sum())


def soft_labels(
    a_teacher: Tensor,
    b_teacher: Tensor,
    beta: float,
    kind: SoftKind = "raw",
    temperature: Tensor | float = 0.05,
) -> tuple[Tensor, Tensor]:
    """Targets (N, N) and `back` (N, N): (1 - beta) I + beta S, S how alike a teacher finds a side.

    The teacher's embeddings are (N, d) or those of M teachers (M, N, d), whose cosines are
    averaged, of any length. The sounds' likeness goes into a to b, the captions' into b to a.
    raw: S are the cosines, and entries that are not positive count for nothing (CLAP curation's
    SoftCLAPLoss with torch 1.10); rows do not sum to 1. Labelled deviations: row_normalised divides
    each raw row by its sum, softmax takes the rows of softmax(cosines / temperature) for S.
    """
    found = []
    for side in (a_teacher, b_teacher):
        alike = cosines(side, side)
        if kind == "softmax":
            alike = (alike / temperature).softmax(-1)
        elif kind not in ("raw", "row_normalised"):
            raise ValueError(f"kind must be raw, row_normalised or softmax, not {kind!r}")
        target = (1 - beta) * torch.eye(len(alike)).to(alike) + beta * alike
        target = target.clamp_min(0)
        found.append(target / target.sum(1, keepdim=True) if kind == "row_normalised" else target)
    return found[0], found[1]


def cosines(a_teacher: Tensor, b_teacher: Tensor) -> Tensor:
    """Cosines (N, K) of (N, d) and (K, d), of any length.

    Of M teachers, (M, N, d) and (M, K, d), it is the mean of their cosines (SALSA: they are
    averaged first, then divided by the temperature).
    """
    found = F.normalize(a_teacher, dim=-1) @ F.normalize(b_teacher, dim=-1).mT
    return found if found.ndim == 2 else found.mean(0)


def estimated(similarities: Tensor, tau: Tensor | float) -> tuple[Tensor, Tensor]:
    """Estimated correspondences from a teacher's cosines (N, K), or those of M of them (M, N, K).

    Returns targets (N, K), the softmax of cosines / |tau| over b, and `back` (K, N), over a.
    """
    mean = similarities if similarities.ndim == 2 else similarities.mean(0)
    logits = mean * _scale(tau)
    return logits.softmax(1), logits.T.softmax(1)


# ---- losses -------------------------------------------------------------------------------------


def divergence_offset(targets: Tensor, back: Tensor) -> Tensor:
    """What makes cross entropies KL divergences: T ln T summed, over the whole batch's rows; 0-d.

    Of both directions together; of some rows (n, N) it is their part. It has no gradient for the
    student, so training is the same with and without it.
    """
    rows, columns = back.shape[1], targets.shape[1]
    return torch.xlogy(targets, targets).sum() / rows + torch.xlogy(back, back).sum() / columns


def spread(targets: Tensor, back: Tensor, a_each: int, b_each: int) -> tuple[Tensor, Tensor]:
    """Targets where an item has several rows on a side, all of them its partners in equal shares.

    targets, back (n, N) of items -> (n a_each, N b_each) and (n b_each, N a_each); the rows of an
    item follow each other.
    """
    return (
        targets.repeat_interleave(a_each, 0).repeat_interleave(b_each, 1) / b_each,
        back.repeat_interleave(b_each, 0).repeat_interleave(a_each, 1) / a_each,
    )


def soft_label_loss(
    a: Tensor,
    b: Tensor,
    scale: Tensor | float,
    targets: Tensor,
    back: Tensor,
    clamp: float | None = None,
) -> Tensor:
    """CLAP curation's soft-label loss: the mean of KL(targets || a to b) and KL(back || b to a).

    KL(T || l) = 1/N sum over T > 0 of T (ln T - l), with l the log softmax of the logits
    min(scale cos, clamp) (its clamp is 100). Targets may be those of `soft_labels`.
    """
    loss = contrastive(a, b, scale, targets, "mean", False, back=back, clamp=clamp)
    return loss + divergence_offset(targets, back) / 2


def salsa_stage1(
    a: Tensor, b: Tensor, recording_ids: Tensor | Sequence[int] | Sequence[str], tau: Tensor | float
) -> Tensor:
    """SALSA's supervised loss: all pairs of one recording are positive, each of equal weight."""
    weights = shared_weights(positives_of(recording_ids)).to(a)
    return contrastive(a, b, _scale(tau), weights, "mean", False, back=weights)


def distillation(
    a: Tensor,
    b: Tensor,
    similarities: Tensor,
    tau: Tensor | float,
    teacher_tau: Tensor | float | None = None,
) -> Tensor:
    """SALSA's second stage: cross entropy to `estimated(similarities, teacher_tau)`.

    `similarities` are cosines (N, N), or (M, N, N) of M teachers. Without `teacher_tau` the teacher
    has the student's own tau, whose gradient then runs through both (as in SALSA's code).
    """
    forth, back = estimated(similarities, tau if teacher_tau is None else teacher_tau)
    return contrastive(a, b, _scale(tau), forth, "mean", False, back=back)


def _scale(tau: Tensor | float) -> Tensor | float:
    return 1 / tau.abs() if isinstance(tau, Tensor) else 1 / abs(tau)
