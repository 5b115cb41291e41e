"""The search behind match: fast scores with an error bound, candidates, exact scores.

For a block of queries the keys pass by in blocks. Each query has a floor: the least fast score that
could still belong to its answer, that is its k-th best so far (or the threshold) less the error
bound. The greatest score of each group of keys is compared with the floor, and only the groups that
beat it are looked at; after some blocks these are few. Candidates are scored in float64 at the end.
Letters: R queries, S a strip of them, B keys of a block, G its groups, H candidates, D dimensions.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pivot.embeddings.vectors import Vectors

FEW_KEYS = 1024  # up to here every key is scored in float64 at once
STRIP = 1024  # queries in one product
KEY_BLOCK, GPU_KEY_BLOCK = 4096, 65536  # keys in one product
DENSE_SCORES = 2**22  # float64 scores held at once where all are wanted
GROUP = 256  # keys of a block whose greatest score is compared with the floor
PENDING = 2**22  # candidates held before they are scored
DOT_ROWS = 128  # candidates scored together: stays in the cache
HALF_ULP = {torch.bfloat16: 2.0**-8, torch.float32: 2.0**-24}

Answer = tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.int64] | None]


class Search:
    """Finds the answer for blocks of queries among the same keys."""

    def __init__(
        self, keys: Vectors, k: int | None, threshold: float | None, fast: torch.dtype | None
    ) -> None:
        """`fast` is the type of the fast pass; None scores every key in float64."""
        self.keys, self.k, self.threshold, self.fast = keys, k, threshold, fast
        if fast is not None:
            self.rounded = fast
            if fast is torch.float32 and torch.get_float32_matmul_precision() != "highest":
                self.rounded = torch.bfloat16  # torch may round inputs of fp32 products then
            self.key_lost = keys.rounding(self.rounded)

    def __call__(self, queries: Tensor, most: int | None = None) -> Answer | None:
        """Answer for queries (R, D) in float64: index and score, with offsets for a threshold.

        None where a threshold lets more than `most` neighbours pass: ask for fewer queries.
        """
        found = _Found(self, queries, most)
        try:
            if self.fast is None:
                found.score_all(0, self.keys.count)
            else:
                self._pass(queries.to(self.fast), found, self._error(queries))
        except _TooMany:
            return None
        return found.answer()

    def _error(self, queries: Tensor) -> Tensor:
        """Greatest difference between a fast and an exact score, per row (R,).

        |q'k' - qk| <= |q' - q| |k'| + |q| |k' - k| by Cauchy-Schwarz for rounded inputs, plus the
        rounding of D float32 sums and of the output.
        """
        assert self.fast is not None
        norm = queries.norm(dim=1)
        lost = (queries - queries.to(self.rounded).double()).norm(dim=1)
        rest = 2 * HALF_ULP[self.fast] + 4 * self.keys.dim * HALF_ULP[torch.float32]
        error = lost * (self.keys.norm + self.key_lost) + norm * self.key_lost
        return (error + rest * norm * self.keys.norm).float()

    def _pass(self, fast: Tensor, found: _Found, error: Tensor) -> None:
        """Run the keys past the queries; settle the candidates whenever they are many."""
        floors = _Floors(error, self.k, self.threshold)
        width = GPU_KEY_BLOCK if fast.is_cuda else KEY_BLOCK
        width = max(width, math.ceil(8 * (self.k or 0) / GROUP) * GROUP)
        buffer = torch.empty(STRIP * width, dtype=fast.dtype, device=fast.device)
        rounded = torch.zeros(width, self.keys.dim, dtype=fast.dtype, device=fast.device)
        settled = 0
        for low in range(0, self.keys.count, width):
            keys = min(width, self.keys.count - low)
            block = rounded[: math.ceil(keys / GROUP) * GROUP]
            block[:keys] = self.keys.block(slice(low, low + keys))
            for start in range(0, len(fast), STRIP):
                strip = fast[start : start + STRIP]
                out = buffer[: len(strip) * len(block)].view(len(strip), len(block))
                torch.mm(strip, block.T, out=out)
                out[:, keys:] = -math.inf  # what fills the last group is no key
                floors.look(out, start, low)
            if floors.count > PENDING:
                settled = found.settle(floors, settled, low + keys)
        found.settle(floors, settled, self.keys.count)


class _TooMany(Exception):
    """More neighbours than one answer may have."""


class _Floors:
    """The least fast score of interest per query, and the candidates at or above it."""

    def __init__(self, error: Tensor, k: int | None, threshold: float | None) -> None:
        self.error, self.k = error, k
        lowest = -math.inf if threshold is None else threshold
        self.floor = lowest - error  # (R,) float32
        self.best = torch.full((len(error), k or 0), -math.inf, device=error.device)
        self.hits: list[tuple[Tensor, Tensor, Tensor]] = []
        self.count = 0

    def look(self, scores: Tensor, start: int, low: int) -> None:
        """Keep the candidates among fast scores (S, B) of queries from start, keys from low on."""
        rows = slice(start, start + len(scores))
        fresh = self.k is not None and bool((self.best[rows, -1] == -math.inf).any())
        if fresh and self.k is not None and self.k <= scores.shape[1]:
            self._raise(rows, scores.topk(self.k, dim=1).values.float())
        limit = self._rounded_down(rows, scores.dtype)
        groups = scores.view(len(scores), -1, GROUP)  # (S, G, GROUP)
        row, group = (groups.amax(dim=2) >= limit[:, None]).nonzero(as_tuple=True)
        if not len(row):
            return
        near = groups.flatten(0, 1).index_select(0, row * groups.shape[1] + group)
        hit, place = (near >= limit[row, None]).nonzero(as_tuple=True)
        value = near[hit, place].float()
        row, column = row[hit], group[hit] * GROUP + place
        if self.k is not None and not fresh:
            self._raise_some(row, value, start)
        self.hits.append((row + start, column + low, value))
        self.count += len(row)

    def _raise_some(self, row: Tensor, value: Tensor, start: int) -> None:
        """Let the candidates (sorted by row) of some rows raise their floors."""
        active, place = row.unique_consecutive(return_inverse=True)
        self._raise(active + start, _table(place, value, len(active)))

    def _raise(self, rows: slice | Tensor, values: Tensor) -> None:
        """Let new fast scores (A, any) of some rows raise their k-th best, and so their floor."""
        assert self.k is not None
        best = torch.cat([self.best[rows], values], dim=1).topk(self.k, dim=1).values
        self.best[rows] = best
        # both the k-th best and a candidate may be off by the error, in opposite directions
        self.floor[rows] = torch.maximum(self.floor[rows], best[:, -1] - 2 * self.error[rows])

    def _rounded_down(self, rows: slice, dtype: torch.dtype) -> Tensor:
        floor = self.floor[rows]
        return (floor - floor.abs() * 2 * HALF_ULP[dtype]).to(dtype)

    def take(self) -> tuple[Tensor, Tensor]:
        """Hand out (query, key) of the candidates that still reach their floor, and forget them."""
        if not self.hits:
            none = torch.empty(0, dtype=torch.int64, device=self.error.device)
            return none, none
        row, column, value = (torch.cat(part) for part in zip(*self.hits, strict=True))
        self.hits, self.count = [], 0
        keep = value >= self.floor[row]
        return row[keep], column[keep]


def _table(row: Tensor, value: Tensor, rows: int) -> Tensor:
    """Values of sorted rows as (rows, most in a row), padded with -inf."""
    counts = torch.bincount(row, minlength=rows)
    place = torch.arange(len(row), device=row.device) - (counts.cumsum(0) - counts)[row]
    table = torch.full((rows, int(counts.max())), -math.inf, device=row.device)
    table[row, place] = value
    return table


class _Found:
    """Exactly scored entries (query, key, score), flat; per query by falling score, rising key.

    With k they are sorted and cut whenever some are added, with a threshold alone at the end.
    """

    def __init__(self, search: Search, queries: Tensor, most: int | None) -> None:
        self.keys, self.k, self.threshold = search.keys, search.k, search.threshold
        self.queries, self.most, self.count = queries, most, 0
        row = torch.empty(0, dtype=torch.int64, device=queries.device)
        self.parts = [(row, row, torch.empty(0, device=queries.device))]

    def settle(self, floors: _Floors, start: int, end: int) -> int:
        """Score the candidates among keys start:end; all keys where many of them are candidates."""
        row, column = floors.take()
        if len(row) * 16 > len(self.queries) * (end - start):
            self.score_all(start, end)
        else:
            self._merge(row, column, self._dots(row, column))
        return end

    def score_all(self, start: int, end: int) -> None:
        """Score keys start:end for every query, as products in float64."""
        step = max(1, DENSE_SCORES // len(self.queries))
        for low in range(start, end, step):
            keys = self.keys.exact(slice(low, min(low + step, end)))
            score = (self.queries @ keys.T).float()
            keep = torch.ones_like(score, dtype=torch.bool)
            if self.k is not None and self.k < len(keys):
                keep = score >= score.topk(self.k, dim=1).values[:, -1:]
            row, column = keep.nonzero(as_tuple=True)
            self._merge(row, column + low, score[row, column])

    def _dots(self, row: Tensor, column: Tensor) -> Tensor:
        """Scores (H,) of candidates, each its own dot product in float64, rounded to float32."""
        score = torch.empty(len(row), device=row.device)
        step = 2**16 if row.is_cuda else DOT_ROWS
        for i in range(0, len(row), step):
            part = slice(i, i + step)
            score[part] = (self.queries[row[part]] * self.keys.exact(column[part])).sum(dim=1)
        return score

    def _merge(self, row: Tensor, column: Tensor, score: Tensor) -> None:
        """Add entries of later keys than all before, sorted by key within a query."""
        if self.threshold is not None:
            keep = score >= self.threshold
            row, column, score = row[keep], column[keep], score[keep]
        self.parts.append((row, column, score))
        if self.k is not None:
            self._sort()
            return
        self.count += len(row)
        if self.most is not None and self.count > self.most:
            raise _TooMany

    def _sort(self) -> None:
        """Bring the entries in order; keep the best k.

        Stable sorts by score and then by query leave equal scores in the order of their keys.
        """
        row, column, score = (torch.cat(part) for part in zip(*self.parts, strict=True))
        order = score.argsort(descending=True, stable=True)
        order = order[row[order].argsort(stable=True)]
        row = row[order]
        if self.k is not None:
            counts = torch.bincount(row, minlength=len(self.queries))
            first = counts.cumsum(0) - counts
            keep = torch.arange(len(row), device=row.device) - first[row] < self.k
            row, order = row[keep], order[keep]
        self.parts = [(row, column[order], score[order])]

    def answer(self) -> Answer:
        """Index and score: (R, k), or flat with offsets where a threshold decides."""
        self._sort()
        row, column, found = self.parts[0]
        index, score = column.cpu().numpy(), found.cpu().numpy()
        if self.threshold is None:
            assert self.k is not None
            return index.reshape(-1, self.k), score.reshape(-1, self.k), None
        counts = torch.bincount(row, minlength=len(self.queries)).cpu().numpy()
        return index, score, np.concatenate([[0], np.cumsum(counts)])
