"""Closing the modality gap without training: centring each modality, or whitening what is left.

Sounds, frames and texts of one model lie in cones of their own (Liang et al. 2022, arXiv
2203.02053). Centring subtracts from each modality its mean unit vector. Whitening also multiplies
by S^(-1/2), where S is the covariance of all centred rows together: one map for all modalities, so
that what was near stays near. Both give unit vectors again. Means and S come from vectors alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pivot.embeddings.store import UnitRows
from pivot.errors import DataError

Floats = NDArray[np.float32]
Rows = Floats | UnitRows  # (n, d)
BLOCK = 65536  # rows held in float64 at once
LEAST = 2  # rows that a mean needs: minus its mean, a single row is nothing


@dataclass(frozen=True)
class Closing:
    """Means (d,) by modality, and the map (d, d) that follows, if any."""

    means: Mapping[str, NDArray[np.float64]]
    matrix: NDArray[np.float64] | None = None

    def __call__(self, modality: str, x: Floats) -> Floats:
        """Vectors (n, d) of a modality, moved, at unit length.

        Raises DataError for NaN, and for a vector that is its modality's mean: it has no direction.
        """
        moved = x.astype(np.float64) - self.means[modality]
        if self.matrix is not None:
            moved = moved @ self.matrix
        length = np.linalg.norm(moved, axis=1, keepdims=True)
        # What is left of a row equal to the mean is the last digits of float32.
        bad = np.flatnonzero(~(length[:, 0] > 1e-6))
        if bad.size:
            raise DataError(
                f"the gap cannot be closed: {bad.size} of {len(x)} {modality} vectors (the first: "
                f"{bad[0]}) are NaN or equal to the mean; give --gap-from other data"
            )
        found: Floats = (moved / length).astype(np.float32)
        return found


def closing(
    how: Literal["centre", "whiten"], rows: Mapping[str, Rows], shrink: float = 0.5
) -> Closing:
    """The map that closes the gap between modalities, from rows (n, d) of each.

    shrink is for whiten, see `whitening`. Raises DataError for a modality of fewer than two rows,
    and for NaN.
    """
    means = {modality: _mean(modality, own) for modality, own in rows.items()}
    if how == "centre":
        return Closing(means)
    centred = (own - means[modality] for modality, x in rows.items() for own in _blocks(x))
    return Closing(means, whitening(centred, shrink))


def whitening(blocks: Iterable[NDArray[np.float64]], shrink: float) -> NDArray[np.float64]:
    """S^(-1/2) (d, d) of centred rows in blocks (n, d).

    S = (1 - shrink) C + shrink m I with C = mean of x x' and m = trace C / d: 0 whitens wholly,
    which blows up directions that hold little but noise; 1 changes nothing but the length.
    """
    n, total = 0, np.zeros(())
    for x in blocks:
        n += len(x)
        total = total + x.T @ x
    covariance, d = total / n, len(total)
    scale = float(np.trace(covariance)) / d
    if not scale > 0:
        raise DataError("the gap cannot be closed: all vectors of a modality are the same")
    values, vectors = np.linalg.eigh((1 - shrink) * covariance + shrink * scale * np.eye(d))
    # Directions in which no row differs say nothing: they are not blown up to noise.
    floor = max(values[-1] * 1e-10, np.finfo(np.float64).tiny)
    return (vectors / np.sqrt(np.maximum(values, floor))) @ vectors.T


def _blocks(rows: Rows) -> Iterator[NDArray[np.float64]]:
    for start in range(0, len(rows), BLOCK):
        yield np.asarray(rows[start : start + BLOCK], dtype=np.float64)


def _mean(modality: str, rows: Rows) -> NDArray[np.float64]:
    if len(rows) < LEAST:
        raise DataError(
            f"the gap cannot be closed: {len(rows)} {modality} vectors have no mean that tells; "
            f"give --gap-from data with at least {LEAST}"
        )
    total = sum(block.sum(axis=0) for block in _blocks(rows))
    mean: NDArray[np.float64] = np.asarray(total, dtype=np.float64) / len(rows)
    if not np.isfinite(mean).all():
        raise DataError(f"the gap cannot be closed: {modality} vectors hold NaN; embed again")
    return mean
