"""Time of an exact top-10 match: ours beside torch, numpy, faiss and the bare matrix product.

Vectors are made up: unit, 512-d, in a cone with clusters, some of the keys twice, as captions are.
Candidates take turns, so that a busy machine slows all of them alike; each reports its best turn.
With one thread the clock is the process's CPU time, with more it is the wall's. Recall is by score:
the share of found scores that reach the exact tenth best. The bare products find nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from importlib import import_module, util
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pivot.embeddings.match import match
from pivot.settings import Bench

DIM, K = 512, 10
ROWS, COLUMNS = 1024, 4096  # block of the peers and of the bare products
SIZES = ((1024, 100_000, 0.0), (512, 1_000_000, 60.0))  # queries, keys, least budget in seconds
Candidate = Callable[[], Tensor | None]  # scores (n, K), or None


def bench(settings: Bench) -> dict[str, Any]:
    """Rows {name, queries, keys, seconds, gflops, ratio, recall}; ratio: times our time."""
    before = torch.get_num_threads()
    torch.set_num_threads(settings.threads)
    sizes = [(q, m) for q, m, least in SIZES if settings.seconds >= least]
    rows: list[dict[str, Any]] = []
    try:
        for queries, keys in sizes:
            new = _rows(queries, keys, settings.threads, settings.seconds / len(sizes))
            print(_table(new, settings.threads))
            rows += new
    finally:
        torch.set_num_threads(before)
    if len(sizes) < len(SIZES):
        print(f"with --seconds {SIZES[-1][2]:.0f} or more also {SIZES[-1][1]:,} keys")
    return {"threads": settings.threads, "dimension": DIM, "k": K, "rows": rows}


def vectors(count: int, seed: int) -> Tensor:
    """Unit vectors (count, DIM), clustered in a cone; one in 25 stands there twice."""
    world = torch.Generator().manual_seed(0)
    basis = torch.randn(64, DIM, generator=world)
    own = torch.Generator().manual_seed(seed)
    found = torch.empty(count, DIM)
    for part in found.split(65536):
        latent = torch.randn(len(part), 64, generator=own) / 8
        noise = 0.5 * torch.randn(len(part), DIM, generator=own)
        part.copy_(torch.nn.functional.normalize(latent @ basis + noise + 0.8 * basis[0]))
        part[::25] = part[: len(part[::25])].clone()
    return found


def _rows(queries: int, keys: int, threads: int, seconds: float) -> list[dict[str, Any]]:
    q, m = vectors(queries, 2), vectors(keys, 1)
    candidates = _candidates(q, m)
    best, found = _best(candidates, threads, seconds)
    exact = found["torch fp32 blocks + topk"]
    assert exact is not None
    return [
        {
            "name": name,
            "queries": queries,
            "keys": keys,
            "seconds": took,
            "gflops": 2e-9 * queries * keys * DIM / took,
            "ratio": took / best["match (pivot)"],
            "recall": _recall(found[name], exact),
        }
        for name, took in best.items()
    ]


def _candidates(q: Tensor, m: Tensor) -> dict[str, Candidate]:
    halves = q.bfloat16(), m.bfloat16()
    found: dict[str, Candidate] = {
        "match (pivot)": lambda: torch.from_numpy(match(q, m, k=K).score),
        "torch fp32 blocks + topk": lambda: _torch(q, m),
        "torch bf16 blocks + topk": lambda: _torch(*halves),
        "numpy argpartition": lambda: _numpy(q.numpy(), m.numpy()),
        "bare fp32 product": lambda: _bare(q, m),
        "bare bf16 product": lambda: _bare(*halves),
    }
    if util.find_spec("faiss"):
        faiss = import_module("faiss")
        found["faiss flat"] = lambda: torch.from_numpy(faiss.knn(
            q.numpy(), m.numpy(), K, metric=faiss.METRIC_INNER_PRODUCT
        )[0])  # fmt: skip
    return found


def _torch(q: Tensor, m: Tensor) -> Tensor:
    """The usual way: blocks of scores, topk of each block, topk of those."""
    rows = []
    for queries in q.split(ROWS):
        blocks = [(queries @ keys.T).topk(K, dim=1).values for keys in m.split(COLUMNS)]
        rows.append(torch.cat(blocks, dim=1).topk(K, dim=1).values)
    return torch.cat(rows).float()


def _numpy(q: np.ndarray, m: np.ndarray) -> Tensor:
    """Blocks of scores, argpartition of each block, sort of what is left."""
    rows = []
    for start in range(0, len(q), ROWS):
        best = []
        for low in range(0, len(m), COLUMNS):
            scores = q[start : start + ROWS] @ m[low : low + COLUMNS].T
            near = np.argpartition(scores, -K, axis=1)[:, -K:]
            best.append(np.take_along_axis(scores, near, axis=1))
        rows.append(-np.sort(-np.concatenate(best, axis=1), axis=1)[:, :K])
    return torch.from_numpy(np.concatenate(rows))


def _bare(q: Tensor, m: Tensor) -> None:
    """The products alone, into one buffer: the bound for any exact way in this precision."""
    buffer = torch.empty(ROWS * COLUMNS, dtype=q.dtype)
    for queries in q.split(ROWS):
        for keys in m.split(COLUMNS):
            size = len(queries) * len(keys)
            torch.mm(queries, keys.T, out=buffer[:size].view(len(queries), len(keys)))


def _best(
    candidates: dict[str, Candidate], threads: int, seconds: float
) -> tuple[dict[str, float], dict[str, Tensor | None]]:
    """Best time of each candidate over turns within the budget (at least one), and its answer."""
    clock = time.process_time if threads == 1 else time.perf_counter
    best = dict.fromkeys(candidates, float("inf"))
    found: dict[str, Tensor | None] = {}
    begin = time.perf_counter()
    turn = 0.0
    while time.perf_counter() - begin + turn < seconds or not found:
        turn_start = time.perf_counter()
        for name, candidate in candidates.items():
            start = clock()
            found[name] = candidate()
            best[name] = min(best[name], clock() - start)
        turn = time.perf_counter() - turn_start
    return best, found


def _recall(found: Tensor | None, exact: Tensor) -> float | None:
    """Share of scores that reach the exact K-th best, less float32's rounding."""
    return None if found is None else float((found >= exact[:, -1:] - 1e-6).float().mean())


def _table(rows: list[dict[str, Any]], threads: int) -> str:
    clock = "CPU" if threads == 1 else "wall"
    first = rows[0]
    lines = [
        f"top {K} of {first['queries']:,} queries among {first['keys']:,} keys, {DIM}-d, "
        f"{threads} thread(s), {clock} time, best of all turns"
    ]
    for row in rows:
        recall = "" if row["recall"] is None else f"  recall {row['recall']:.4f}"
        lines.append(
            f"  {row['name']:<26}{row['seconds']:8.2f} s {row['gflops']:7.0f} GFLOP/s "
            f"{row['ratio']:6.2f} x ours{recall}"
        )
    return "\n".join(lines)
