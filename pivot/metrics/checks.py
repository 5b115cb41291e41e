"""What the metrics refuse: nothing to average, NaN, wrong shapes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pivot.errors import DataError

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


def some(values: ArrayLike, what: str) -> NDArray[Any]:
    """The values as an array; DataError where there are none."""
    array = np.asarray(values)
    if not array.size:
        raise DataError(f"no {what} to average: there is no query")
    return array


def finite(values: ArrayLike, what: str) -> NDArray[np.floating]:
    """The values as an array; DataError where there are none, or one is NaN or infinite."""
    array = np.asarray(values)
    if not array.size:
        raise DataError(f"{what} is empty: there is nothing to rank")
    if not np.isfinite(array).all():
        raise DataError(
            f"{what} holds NaN or infinite values; the embeddings behind it are damaged"
        )
    return array


def unit(x: ArrayLike, least: int = 1) -> Floats:
    """Rows (n, d) at unit length; DataError for fewer than `least`, NaN, or a row of length 0."""
    rows = finite(x, "the table of vectors").astype(np.float64)
    if rows.ndim != 2 or len(rows) < least:
        raise DataError(f"vectors of shape {rows.shape}; give at least {least} rows")
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    if not length.all():
        raise DataError("a vector of length 0 has no direction; the embeddings are damaged")
    return rows / length
