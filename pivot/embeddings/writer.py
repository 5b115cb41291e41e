"""Writes an embedding store in whole parts, so that a killed embed goes on where it stopped."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pivot.embeddings.part_files import read_part, write_part
from pivot.embeddings.parts import Part, PartFolder
from pivot.embeddings.store import FORMAT, IDS, MANIFEST, TEXTS, VECTORS, EmbeddingStore
from pivot.errors import StoreError
from pivot.runs import versions
from video_prep.files import whole_file, write_json

PART_ITEMS, PART_SECONDS = 4096, 30.0  # a part is written after so many items or seconds


class StoreWriter(PartFolder):
    """A store of vectors being written; see PartFolder."""

    def __init__(
        self,
        path: str | Path,
        identity: dict[str, Any],
        ids: Sequence[str],
        part: Part | None = None,
        step: int = 1,
        texts: Sequence[str] | None = None,
        model: dict[str, str] | None = None,
    ) -> None:
        """Begin, or go on with, one part of the store; `texts` are the sentences of a text store.

        `step` is the inputs of a batch; `model` has the hashes of the two encoders of the model
        that makes it (audio_hash, text_hash), where one does.
        """
        super().__init__(path, {"format": FORMAT, **identity}, ids, part, step)
        self.texts, self.model = texts, model
        self._vectors: list[NDArray[np.float16]] = []
        self._places: list[int] = []
        self._failures: list[dict[str, str]] = []
        self._start = self.next
        self._written = time.monotonic()

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
        many = self.next - self._start >= PART_ITEMS
        if many or time.monotonic() - self._written > PART_SECONDS:
            self._write_part()

    def finish(self) -> EmbeddingStore | None:
        """Join the parts into the store, manifest last; None while another part is not done.

        Raises NothingUsableError for no vector.
        """
        if self.next != self.inputs.stop:
            raise ValueError(f"{self.next - self.inputs.start} of {self.inputs} are embedded")
        self._write_part()
        return EmbeddingStore.open(self.path) if self.join() else None

    def _join(self, parts: list[Path]) -> None:
        places: list[int] = []
        failures: list[dict[str, str]] = []
        for part in parts:
            kept, failed = read_part(part, "places", "failures")
            places += kept.tolist()
            failures += json.loads(str(failed))
        self._write_failures(failures)
        if not places:
            raise self._nothing_usable()
        digest = self._write_vectors(len(places), parts)
        write_json(self.path / IDS, [self.ids[place] for place in places])
        if self.texts is not None:
            write_json(self.path / TEXTS, [self.texts[place] for place in places])
        facts: dict[str, Any] = {"count": len(places), "failed": len(failures)}
        facts |= {"dtype": "float16", "vectors_sha256": digest, "versions": versions()}
        if self.model is not None:
            facts["model"] = self.model
        write_json(self.path / MANIFEST, {**self.identity, **facts})

    def _checked(self, vectors: NDArray[np.floating], kept: list[int]) -> NDArray[np.float16]:
        shape = (len(vectors), self.identity["rows"], self.identity["dim"])
        lengths = np.linalg.norm(np.asarray(vectors, np.float32).reshape(shape), axis=2)
        wrong = ~(np.abs(lengths - 1) < 1e-2)  # NaN is wrong too
        if wrong.any():
            name = self.ids[self.next + kept[int(np.argwhere(wrong)[0][0])]]
            raise StoreError(f"the embedding of {name} is not of unit length; are weights damaged?")
        return np.asarray(vectors, np.float16).reshape(shape)

    def _write_part(self) -> None:
        if self.next > self._start:
            write_part(
                self.path,
                self._start,
                self.next,
                vectors=np.concatenate(self._vectors),
                places=np.array(self._places, np.int64),
                failures=np.array(json.dumps(self._failures)),
            )
        self._vectors, self._places, self._failures = [], [], []
        self._start, self._written = self.next, time.monotonic()

    def _write_vectors(self, count: int, parts: list[Path]) -> str:
        """Write the parts as one .npy file, never all in memory; return its vectors' sha256."""
        shape = (count, self.identity["rows"], self.identity["dim"])
        digest = hashlib.sha256()
        with whole_file(self.path / VECTORS) as file:
            header = {"descr": "<f2", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
            for part in parts:
                raw = read_part(part, "vectors")[0].astype("<f2").tobytes()
                digest.update(raw)
                file.write(raw)
        return digest.hexdigest()
