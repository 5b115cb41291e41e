"""Nearest keys of each query: exact by score, blocked, in bounded memory; by k, threshold or both.

Scores are dot products, computed twice. A fast pass multiplies blocks in bf16 (where that is
faster here) or fp32, with a bound on its error (`pivot.embeddings.candidates`); whatever could
still belong to the answer is scored again in float64 and rounded to float32. So the answer is the
exact one, the same on any device and in any precision, and equal keys have equal scores: ties go
to the lowest index. There is no approximate index: measured, it does not pay (`pivot bench match`).
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pivot.embeddings.candidates import FEW_KEYS, Search
from pivot.embeddings.store import UnitRows
from pivot.embeddings.vectors import Vectors
from pivot.errors import DataError, SettingsError

Precision = Literal["auto", "bf16", "fp32"]
QUERY_BLOCK = 4096  # queries whose answer is held at once
HELD = 2**23  # neighbours held at once: fewer queries a block where k is large


@dataclass(frozen=True)
class Matches:
    """Neighbours by falling score, equal scores by rising index.

    Without a threshold index and score are (n, k); with one they are flat and the neighbours of
    query i are at offsets[i]:offsets[i + 1].
    """

    index: NDArray[np.int64]
    score: NDArray[np.float32]
    offsets: NDArray[np.int64] | None = None

    def rows(self) -> NDArray[np.int64]:
        """Query of each entry of the flattened index."""
        if self.offsets is None:
            return np.repeat(np.arange(len(self.index)), self.index.shape[1])
        return np.repeat(np.arange(len(self.offsets) - 1), np.diff(self.offsets))


def match(
    queries: NDArray | Tensor | UnitRows,
    keys: NDArray | Tensor | UnitRows,
    k: int | None = None,
    threshold: float | None = None,
    device: str = "cpu",
    precision: Precision = "auto",
) -> Matches:
    """Neighbours of queries (n, d) among keys (m, d): the best k, all from a threshold on, or both.

    k above m gives all m. Raises DataError for vectors that are empty, not finite or of different
    dimensions, SettingsError for a senseless k or threshold.
    """
    parts = list(match_blocks(queries, keys, k, threshold, device, precision))
    index = np.concatenate([part.index for part in parts])
    score = np.concatenate([part.score for part in parts])
    if threshold is None:
        return Matches(index, score)
    counts = [np.diff(part.offsets) for part in parts if part.offsets is not None]
    return Matches(index, score, np.concatenate([[0], np.cumsum(np.concatenate(counts))]))


def match_blocks(
    queries: NDArray | Tensor | UnitRows,
    keys: NDArray | Tensor | UnitRows,
    k: int | None = None,
    threshold: float | None = None,
    device: str = "cpu",
    precision: Precision = "auto",
) -> Iterator[Matches]:
    """The same, some queries at a time and in their order: for answers larger than memory.

    A block whose answer is longer than HELD neighbours is done again in shorter ones.
    """
    _check_request(k, threshold)
    device = "cpu" if device.startswith("mps") else device  # float64 is missing there
    q, m = Vectors(queries, "queries", device), Vectors(keys, "keys", device)
    if q.dim != m.dim:
        raise DataError(f"queries have {q.dim} dimensions, keys {m.dim}; embed both with one model")
    limit = None if k is None else min(k, m.count)
    dense = m.count <= FEW_KEYS or (limit or 0) * 8 > m.count
    search = Search(m, limit, threshold, None if dense else _fast_dtype(q, m, device, precision))
    step, start = max(1, min(QUERY_BLOCK, HELD // (limit or 1))), 0
    while start < q.count:
        answer = search(q.exact(slice(start, start + step)), HELD if step > 1 else None)
        if answer is None:
            step = max(1, step // 4)
            continue
        yield Matches(*answer)
        start += step


def _check_request(k: int | None, threshold: float | None) -> None:
    if k is None and threshold is None:
        raise SettingsError("match needs k, a threshold, or both")
    if k is not None and k < 1:
        raise SettingsError(f"k is {k}; ask for at least one neighbour")
    if threshold is not None and not math.isfinite(threshold):
        raise SettingsError(f"threshold is {threshold}; it must be a finite score")


def _fast_dtype(q: Vectors, m: Vectors, device: str, precision: Precision) -> torch.dtype:
    """Type of the fast pass. The answer does not depend on it; small work is not worth a check."""
    if precision != "auto":
        return torch.bfloat16 if precision == "bf16" else torch.float32
    if device.startswith("cuda"):
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    large = q.count >= 256 and q.count * m.count * q.dim > 1e9
    return torch.bfloat16 if large and bf16_gain() > 1.3 else torch.float32


@lru_cache(maxsize=1)
def bf16_gain() -> float:
    """How many times faster than fp32 a bf16 product is on this CPU (takes about 30 ms, once)."""
    a, b = torch.full((256, 512), 0.5), torch.full((1024, 512), 0.5)
    return _seconds(a, b) / _seconds(a.bfloat16(), b.bfloat16())


def _seconds(a: Tensor, b: Tensor) -> float:
    out = torch.empty(len(a), len(b), dtype=a.dtype)
    best = math.inf
    for _ in range(4):
        start = time.perf_counter()
        torch.mm(a, b.T, out=out)
        best = min(best, time.perf_counter() - start)
    return best
