"""A small store and the processes that make it in parts; imports no torch, so they start fast."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from pivot.embeddings.parts import Part
from pivot.embeddings.store import EmbeddingStore
from pivot.embeddings.writer import StoreWriter

IDENTITY = {
    "what": "audio",
    "weights_hash": "abc",
    "clip": None,
    "prompt": "",
    "dim": 4,
    "rows": 1,
    "data": {"path": "here", "fingerprint": "f"},
}
COUNT, STEP = 37, 4


def vectors(count: int, dim: int = 4, rows: int = 1) -> np.ndarray:
    x = np.random.default_rng(count).standard_normal((count, rows, dim)).astype(np.float32)
    return x / np.linalg.norm(x, axis=2, keepdims=True)


def ids(count: int) -> list[str]:
    return [f"-id {i}" for i in range(count)]


def embed_part(path: Path, part: Part, stop: int | None = None) -> StoreWriter:
    """Add what a part lacks, up to input `stop`, in batches of four; input 9 cannot be used."""
    made = StoreWriter(path, IDENTITY, ids(COUNT), part, STEP)
    whole, end = vectors(COUNT), made.inputs.stop
    while made.next < min(end, COUNT if stop is None else stop):
        taken = range(made.next, min(made.next + STEP, end))
        good = [i for i in taken if i != 9]
        bad = [{"id": ids(COUNT)[i], "error": "bad"} for i in taken if i == 9]
        made.add(whole[good], len(taken), [i - taken.start for i in good], bad)
    return made


def work(path: Path, part: Part) -> EmbeddingStore | None:
    """One process's part of the store."""
    return embed_part(path, part).finish()


def join_together(folder: Path, part: Part, stores: int, barrier: Any) -> None:
    """Begin each of some stores when all do, and join it when every part is done."""
    for number in range(stores):
        barrier.wait(60)
        made = embed_part(folder / str(number), part)
        made._write_part()
        barrier.wait(60)
        assert made.join()
        assert len(EmbeddingStore.open(made.path)) == COUNT - 1
