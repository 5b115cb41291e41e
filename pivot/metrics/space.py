"""Where the modalities lie in the space: gap, spread, alignment, uniformity."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from pivot.errors import DataError
from pivot.metrics.checks import unit


def modality_gap(a: ArrayLike, b: ArrayLike) -> float:
    """Distance between the means of two modalities' unit vectors, (n, d) and (m, d): 0..2.

    |mean(a) - mean(b)|, as Liang et al. 2022, "Mind the Gap" (arXiv 2203.02053), section 2.
    """
    return float(np.linalg.norm(unit(a).mean(axis=0) - unit(b).mean(axis=0)))


def spread(x: ArrayLike) -> float:
    """Mean cosine of all pairs of different rows of x (n, d): 1 where all point one way.

    (|sum x|^2 - n) / (n (n - 1)) for unit rows; the narrow cone of Liang et al. 2022.
    """
    rows = unit(x, least=2)
    n = len(rows)
    return float((np.sum(rows.sum(axis=0) ** 2) - n) / (n * (n - 1)))


def alignment(a: ArrayLike, b: ArrayLike) -> float:
    """Mean squared distance of partners, row by row of unit a and b (n, d): 0..4.

    Wang and Isola 2020 (arXiv 2005.10242), equation 1 with alpha = 2.
    """
    first, second = unit(a), unit(b)
    if first.shape != second.shape:
        raise DataError(f"{first.shape} and {second.shape} are not partners row by row")
    return float(np.mean(np.sum((first - second) ** 2, axis=1)))


def uniformity(x: ArrayLike) -> float:
    """log mean exp(-2 |x_i - x_j|^2) over all pairs of different unit rows of x (n, d): -8..0.

    Wang and Isola 2020 (arXiv 2005.10242), equation 2 with t = 2; the lower, the more even.
    """
    rows = unit(x, least=2)
    n = len(rows)
    total = 0.0
    for start in range(0, n, 1024):
        total += float(np.exp(4 * (rows[start : start + 1024] @ rows.T - 1)).sum())
    return float(np.log((total - n) / (n * (n - 1))))
