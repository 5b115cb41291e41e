"""Time of an exact match, top 10 or threshold: ours beside torch, faiss, bare products.

Vectors are made up: unit, 512-d, in a cone with clusters, some of the keys twice, as captions are.
The threshold lets about ten keys a query pass. Candidates take turns, so that a busy machine slows
all of them alike; each reports its best turn. With one thread the clock is the process's CPU time,
with more it is the wall's. Recall of the top 10 is by score: the share of found scores that reach
the exact tenth best; of a threshold, the share of the exact pairs that are found, and wrong is the
share of found pairs that do not reach it. The bare products find nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module, util
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from pivot.embeddings.match import match
from pivot.settings import Bench

DIM, K = 512, 10
ROWS, COLUMNS = 1024, 4096  # block of the peers and of the bare products
SIZES = ((1024, 100_000, 0.0), (512, 1_000_000, 60.0))  # queries, keys, least budget in seconds
OURS = "match (pivot)"
EDGE = 1e-6  # scores so near to the limit may differ by float32's rounding
Task = Literal["top-k", "threshold"]
TASKS: tuple[Task, ...] = ("top-k", "threshold")
Candidate = Callable[[], Tensor | None]  # scores (n, K); or pairs, numbered row * keys + key


@dataclass(frozen=True)
class Work:
    """Queries (n, d) and keys (m, d), and the score from which about K keys a query pass."""

    queries: Tensor
    keys: Tensor
    threshold: float

    @classmethod
    def make(cls, queries: int, keys: int) -> Work:
        """Make up vectors; the threshold is that of some of the queries."""
        q, m = vectors(queries, 2), vectors(keys, 1)
        few = q[:64]
        best = torch.cat([(few @ part.T).flatten().topk(K).values for part in m.split(64)])
        return cls(q, m, float(best.topk(K * len(few)).values[-1]))


def bench(settings: Bench) -> dict[str, Any]:
    """Rows {task, name, queries, keys, seconds, gflops, ratio, recall, wrong}, a candidate each.

    ratio: times our time.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(settings.threads)
    sizes = [(q, m) for q, m, least in SIZES if settings.seconds >= least]
    rows: list[dict[str, Any]] = []
    try:
        for queries, keys in sizes:
            work = Work.make(queries, keys)
            for task in TASKS:
                seconds = settings.seconds / len(sizes) / len(TASKS)
                new = _rows(work, task, settings.threads, seconds)
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


def _rows(work: Work, task: Task, threads: int, seconds: float) -> list[dict[str, Any]]:
    queries, keys = len(work.queries), len(work.keys)
    best, found = _best(_candidates(work, task), threads, seconds)
    recall, wrong = _recall(work, task, found), _wrong(work, task, found)
    return [
        {
            "task": task,
            "name": name,
            "queries": queries,
            "keys": keys,
            "seconds": took,
            "gflops": 2e-9 * queries * keys * DIM / took,
            "ratio": took / best[OURS],
            "recall": recall[name],
            "wrong": wrong.get(name),
        }
        for name, took in best.items()
    ]


def _candidates(work: Work, task: Task) -> dict[str, Candidate]:
    q, m, limit = work.queries, work.keys, work.threshold
    halves = q.bfloat16(), m.bfloat16()
    bare: dict[str, Candidate] = {
        "bare fp32 product": lambda: _bare(q, m),
        "bare bf16 product": lambda: _bare(*halves),
    }
    if task == "threshold":
        return {
            OURS: lambda: _pairs(work),
            "torch fp32 blocks": lambda: _torch_pairs(q, m, limit),
            "torch bf16 blocks": lambda: _torch_pairs(*halves, limit),
        } | bare | _faiss(work, task)  # fmt: skip
    return {
        OURS: lambda: torch.from_numpy(match(q, m, k=K).score),
        "torch fp32 blocks + topk": lambda: _torch(q, m),
        "torch bf16 blocks + topk": lambda: _torch(*halves),
        "numpy argpartition": lambda: _numpy(q.numpy(), m.numpy()),
    } | bare | _faiss(work, task)  # fmt: skip


def _faiss(work: Work, task: Task) -> dict[str, Candidate]:
    """The Flat index of faiss, where faiss is installed (pip install faiss-cpu)."""
    if not util.find_spec("faiss"):
        return {}
    faiss, q = import_module("faiss"), work.queries.numpy()
    faiss.omp_set_num_threads(torch.get_num_threads())
    index = faiss.IndexFlatIP(DIM)
    index.add(work.keys.numpy())

    def pairs() -> Tensor:
        ends, _, keys = index.range_search(q, work.threshold)
        rows = np.repeat(np.arange(len(q)), np.diff(ends.astype(np.int64)))
        return torch.from_numpy(rows * len(work.keys) + keys)

    if task == "threshold":
        return {"faiss Flat": pairs}
    return {"faiss Flat": lambda: torch.from_numpy(index.search(q, K)[0])}


def _pairs(work: Work) -> Tensor:
    found = match(work.queries, work.keys, threshold=work.threshold)
    return torch.from_numpy(found.rows() * len(work.keys) + found.index)


def _torch_pairs(q: Tensor, m: Tensor, limit: float) -> Tensor:
    """The usual way: blocks of scores, where they reach the limit."""
    found = []
    for start in range(0, len(q), ROWS):
        for low in range(0, len(m), COLUMNS):
            reach = q[start : start + ROWS] @ m[low : low + COLUMNS].T >= limit
            row, column = reach.nonzero(as_tuple=True)
            found.append((row + start) * len(m) + column + low)
    return torch.cat(found)


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


def _recall(work: Work, task: Task, found: dict[str, Tensor | None]) -> dict[str, float | None]:
    """Share of what counts that each candidate has found; None for the bare products."""
    recall: dict[str, float | None] = dict.fromkeys(found)
    if task == "top-k":
        exact = found["torch fp32 blocks + topk"]
        assert exact is not None
        for name, score in found.items():
            if score is not None:
                recall[name] = float((score >= exact[:, -1:] - EDGE).float().mean())
        return recall
    pairs = _torch_pairs(work.queries, work.keys, work.threshold + EDGE)
    for name, own in found.items():
        if own is not None:
            recall[name] = float(torch.isin(pairs, own).float().mean())
    return recall


def _wrong(work: Work, task: Task, found: dict[str, Tensor | None]) -> dict[str, float]:
    """Share of each candidate's pairs that do not reach the threshold; nothing for the top 10."""
    if task == "top-k":
        return {}
    pairs = _torch_pairs(work.queries, work.keys, work.threshold - EDGE)
    answers = {name: own for name, own in found.items() if own is not None}
    return {name: 1 - float(torch.isin(own, pairs).float().mean()) for name, own in answers.items()}


def _table(rows: list[dict[str, Any]], threads: int) -> str:
    clock = "CPU" if threads == 1 else "wall"
    first = rows[0]
    what = f"top {K}" if first["task"] == "top-k" else "all above a threshold"
    lines = [
        f"{what} of {first['queries']:,} queries among {first['keys']:,} keys, {DIM}-d, "
        f"{threads} thread(s), {clock} time, best of all turns"
    ]
    for row in rows:
        recall = "" if row["recall"] is None else f"  recall {row['recall']:.4f}"
        recall += "" if row["wrong"] is None else f"  wrong {row['wrong']:.4f}"
        lines.append(
            f"  {row['name']:<26}{row['seconds']:8.2f} s {row['gflops']:7.0f} GFLOP/s "
            f"{row['ratio']:6.2f} x ours{recall}"
        )
    return "\n".join(lines)
