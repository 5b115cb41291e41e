"""Writes an embedding store in whole parts, so that a killed embed goes on where it stopped."""

from __future__ import annotations

import hashlib
import io
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pivot.embeddings.store import (
    FAILURES,
    FORMAT,
    IDS,
    MANIFEST,
    TEXTS,
    UNFINISHED,
    VECTORS,
    EmbeddingStore,
    is_store,
)
from pivot.errors import NothingUsableError, StoreError
from pivot.runs import versions
from video_prep.files import whole_file, write_json, write_whole

PART_ITEMS, PART_SECONDS = 4096, 30.0  # a part is written after so many items or seconds


class StoreWriter:
    """A store being written. `next` is the first input that is not embedded yet.

    `identity` is everything that decides the vectors; a folder with another one is refused.
    """

    def __init__(self, path: str | Path, identity: dict[str, Any], ids: Sequence[str]) -> None:
        """Begin, or go on with, the store `path` of the inputs `ids`."""
        self.path, self.ids = Path(path), list(ids)
        names = hashlib.sha256("\n".join(self.ids).encode()).hexdigest()
        self.identity = {"format": FORMAT, **identity, "inputs": len(self.ids), "ids_sha256": names}
        self.finished = self._finished_already()
        self.next = len(self.ids) if self.finished else 0
        self._parts: list[Path] = []
        self._vectors: list[NDArray[np.float16]] = []
        self._places: list[int] = []
        self._failures: list[dict[str, str]] = []
        self._written = time.monotonic()
        if not self.finished:
            self._begin()

    def add(
        self,
        vectors: NDArray[np.floating],
        taken: int,
        places: Sequence[int] | None = None,
        failures: Sequence[dict[str, str]] = (),
    ) -> None:
        """Add vectors (n, rows, dim) of the next `taken` inputs.

        `places` says which of these inputs (from 0) the vectors belong to, where some failed.
        """
        kept = list(range(taken)) if places is None else list(places)
        if len(kept) != len(vectors) or len(kept) + len(failures) != taken:
            raise ValueError("each input needs a vector or a failure")
        self._vectors.append(self._checked(vectors, kept))
        self._places += [self.next + place for place in kept]
        self._failures += failures
        self.next += taken
        many = sum(map(len, self._vectors)) + len(self._failures) >= PART_ITEMS
        if many or time.monotonic() - self._written > PART_SECONDS:
            self._write_part()

    def finish(self, texts: Sequence[str] | None = None) -> EmbeddingStore:
        """Join the parts into the store, manifest last; raises NothingUsableError for no vector."""
        if self.finished:
            return EmbeddingStore.open(self.path)
        if self.next != len(self.ids):
            raise ValueError(f"{self.next} of {len(self.ids)} inputs are embedded")
        self._write_part()
        places, failures = self._joined()
        if failures:
            lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in failures)
            write_whole(self.path / FAILURES, "".join(lines))
        if not places:
            self._clean()
            raise NothingUsableError(
                f"none of {len(self.ids)} inputs could be embedded; see {self.path / FAILURES}"
            )
        digest = self._write_vectors(len(places))
        write_json(self.path / IDS, [self.ids[place] for place in places])
        if texts is not None:
            write_json(self.path / TEXTS, [texts[place] for place in places])
        facts: dict[str, Any] = {"count": len(places), "failed": len(failures)}
        facts |= {"dtype": "float16", "vectors_sha256": digest, "versions": versions()}
        write_json(self.path / MANIFEST, {**self.identity, **facts})
        self._clean()
        return EmbeddingStore.open(self.path)

    # ---- begin or go on ---------------------------------------------------------------------

    def _finished_already(self) -> bool:
        if not (self.path / MANIFEST).is_file() or not is_store(self.path):
            return False
        self._check_same(EmbeddingStore.open(self.path).manifest, "holds a store")
        return True

    def _begin(self) -> None:
        if self.path.is_file():
            raise StoreError(f"--out {self.path} is a file; name a folder")
        begun = self.path / UNFINISHED
        if begun.is_file():
            self._check_same(json.loads(begun.read_text("utf-8")), "holds an unfinished store")
            self._go_on()
            return
        if self.path.is_dir() and any(item.name != FAILURES for item in self.path.iterdir()):
            raise StoreError(f"--out {self.path} is in use; name another folder")
        (self.path / FAILURES).unlink(missing_ok=True)
        write_json(begun, self.identity)

    def _check_same(self, earlier: dict[str, Any], holds: str) -> None:
        for key, value in self.identity.items():
            before = earlier.get(key)
            if key == "data":  # may have moved; its content counts
                before, value = _fingerprint(before), _fingerprint(value)
            if before != value:
                raise StoreError(
                    f"--out {self.path} {holds} with another {_SAID.get(key, key)}; "
                    "name another folder, or delete it"
                )

    def _go_on(self) -> None:
        while (part := self.path / f"part-{len(self._parts):05d}.npz").is_file():
            self._parts.append(part)
            with np.load(part) as data:
                self.next = int(data["end"])

    # ---- parts ------------------------------------------------------------------------------

    def _checked(self, vectors: NDArray[np.floating], kept: list[int]) -> NDArray[np.float16]:
        shape = (len(vectors), self.identity["rows"], self.identity["dim"])
        lengths = np.linalg.norm(np.asarray(vectors, np.float32).reshape(shape), axis=2)
        wrong = ~(np.abs(lengths - 1) < 1e-2)  # NaN is wrong too
        if wrong.any():
            name = self.ids[self.next + kept[int(np.argwhere(wrong)[0][0])]]
            raise StoreError(f"the embedding of {name} is not of unit length; are weights damaged?")
        return np.asarray(vectors, np.float16).reshape(shape)

    def _write_part(self) -> None:
        if not self._vectors:
            return
        memory = io.BytesIO()
        np.savez(
            memory,
            vectors=np.concatenate(self._vectors),
            places=np.array(self._places, np.int64),
            failures=np.array(json.dumps(self._failures)),
            end=np.array(self.next),
        )
        part = self.path / f"part-{len(self._parts):05d}.npz"
        write_whole(part, memory.getvalue())
        self._parts.append(part)
        self._vectors, self._places, self._failures = [], [], []
        self._written = time.monotonic()

    def _joined(self) -> tuple[list[int], list[dict[str, str]]]:
        places: list[int] = []
        failures: list[dict[str, str]] = []
        for part in self._parts:
            with np.load(part) as data:
                places += data["places"].tolist()
                failures += json.loads(str(data["failures"]))
        return places, failures

    def _write_vectors(self, count: int) -> str:
        """Write the parts as one .npy file, never all in memory; return its vectors' sha256."""
        shape = (count, self.identity["rows"], self.identity["dim"])
        digest = hashlib.sha256()
        with whole_file(self.path / VECTORS) as file:
            header = {"descr": "<f2", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
            for part in self._parts:
                with np.load(part) as data:
                    raw = data["vectors"].astype("<f2").tobytes()
                digest.update(raw)
                file.write(raw)
        return digest.hexdigest()

    def _clean(self) -> None:
        for part in self._parts:
            part.unlink(missing_ok=True)
        (self.path / UNFINISHED).unlink(missing_ok=True)


def _fingerprint(data: Any) -> Any:
    return data.get("fingerprint") if isinstance(data, dict) else data


_SAID = {
    "what": "kind of data",
    "weights_hash": "encoder",
    "data": "content of the data",
    "ids_sha256": "list of ids",
    "inputs": "number of inputs",
    "dim": "dimension",
    "rows": "number of frames",
    "format": "format",
}
